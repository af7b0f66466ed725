//! Goal: Y19: two calls that add members at once see each other, as two calls one after the other do. Method: calls that
//! are polled in turn.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures::future::join;
use syncline::{DeviceId, Error, GroupId, Limits, ReplicaId, TransactionManager, Uuid};
use syncline_backends::{MemoryNetwork, MemoryStorage};

#[tokio::test]
async fn y19_two_adds_at_once_give_one_device_to_one_replica_and_keep_to_the_limit() {
    let builder = TransactionManager::builder(MemoryStorage::new()).device(DeviceId::new());
    let limits = Limits { members_max: 3, ..Limits::default() };
    let builder = builder.found(GroupId::new()).limits(limits).transport(MemoryNetwork::new().transport());
    let (library, driver) = builder.open().await.unwrap();
    let running = tokio::spawn(driver.run());
    let (id, device) = (|n| ReplicaId(Uuid::from_u128(n)), DeviceId::new());
    let both = join(library.add_member_on(id(1), device), library.add_member_on(id(2), device)).await;
    assert!(matches!(both, (Ok(()), Err(Error::DeviceOfMember { .. }))), "{both:?}");
    let other = |n| library.add_member_on(id(n), DeviceId::new());
    let both = join(other(3), other(4)).await;
    assert!(matches!(both, (Ok(()), Err(Error::TooLarge { .. }))), "{both:?}");
    assert_eq!(library.status().await.unwrap().members.len(), 3);
    library.shutdown().await.unwrap();
    running.await.unwrap().unwrap();
}
