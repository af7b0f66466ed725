//! The list for transports.

use syncline_testkit::transport::{MemoryNetworkFixture, properties};
use syncline_testkit::{BrokenNetwork, TransportFlaw, replication_over_tests, transport_tests};

use crate::matrix::every_flaw_is_caught;

transport_tests!(memory, MemoryNetworkFixture::new);
replication_over_tests!(over_memory, MemoryNetworkFixture::new);

#[test]
fn every_broken_transport_is_caught() {
    let list = properties::<BrokenNetwork>();
    let names: Vec<_> = list.iter().map(|property| property.name).collect();
    every_flaw_is_caught(&names, TransportFlaw::ALL, TransportFlaw::named_by, |name, flaw| {
        let property = list.iter().find(|property| property.name == name).unwrap();
        property.check(&|| BrokenNetwork::new(flaw));
    });
}
