//! A projection has exactly the contents of its records, after every step.

use futures::future::join;
use syncline::{Error, TransactionManager};

use super::app::{
    PAIRED, Store, Trouble, assert_all_agree, assert_in_step, delete_pair, projecting, put_pair, rebuilt,
};
use crate::models::{Note, Place, note};
use crate::replica::app::{DEVICE, at_most, place, run};
use crate::{Fault, FaultKind, Faults, JoinFixture, seed};

/// The rows of a shared and of a device-owned model equal their records after every step of a random history of
/// commits, faults, dropped drivers and reopenings.
pub async fn projections_follow_every_commit<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    for opening in 0..24_u8 {
        let when = format!("SYNCLINE_SEED={seed:#x}, opening {opening}");
        let faults = Faults::new();
        let builder = projecting(fixture, &faults, &Trouble::default()).await;
        if opening % 3 == 2 {
            // Drop the driver in the middle of its work.
            let (library, driver) = builder.open().await.expect("the store opens");
            let work = async {
                let library = library;
                while step::<F>(&library, &mut random).await.is_ok() {}
            };
            let polls = usize::from(opening) * 3;
            join(at_most(polls, driver.run()), work).await;
        } else {
            let steps = async |library: TransactionManager<Store<F>>| {
                rebuilt(&library).await;
                assert_in_step::<F>(&library, &when).await;
                for n in 0..24 {
                    let kind = [FaultKind::Rejected, FaultKind::Undone, FaultKind::ReadError][n % 3];
                    if n % 5 == 4 {
                        faults.arm(Fault::once(0, kind));
                    }
                    let outcome = step::<F>(&library, &mut random).await;
                    faults.disarm();
                    assert_in_step::<F>(&library, &format!("{when}, step {n}, which ended with {outcome:?}"))
                        .await;
                }
                let kind = [FaultKind::UnknownApplied, FaultKind::UnknownLost, FaultKind::PanicAfter]
                    [random.usize(0..3)];
                faults.arm(Fault::once(random.u64(0..4), kind));
                while opening % 3 == 1 && step::<F>(&library, &mut random).await.is_ok() {}
            };
            run(builder, steps).await.expect("the store opens as a replica");
        }
        assert_all_agree(fixture, &when).await;
    }
}

async fn step<F: JoinFixture>(
    library: &TransactionManager<Store<F>>,
    random: &mut fastrand::Rng,
) -> Result<(), Error> {
    let (id, text) = (random.u32(0..6), random.u32(0..20).to_string());
    let pair = PAIRED + id;
    match random.u8(0..8) {
        0 => library.commit(note(id, text)).await.map(drop),
        1 => library.commit(place(id, text)).await.map(drop),
        2 => library.delete::<Note>(id).await,
        3 => library.delete::<Place>((DEVICE, id)).await,
        4 => {
            let append = library.update::<Note, _>(id, move |old| {
                Ok(note(id, old.map_or_else(String::new, |old| old.text) + &text))
            });
            append.await.map(drop)
        }
        5 => {
            let changes: Vec<_> =
                (0..random.u32(0..6)).map(|_| (random.u32(0..6), random.u8(0..4))).collect();
            let batch = library.commit_batch(|batch| {
                for (id, what) in changes {
                    match what {
                        0 => batch.put(&note(id, &*text))?,
                        1 => batch.put(&place(id, &*text))?,
                        2 => batch.delete::<Note>(id)?,
                        _ => batch.delete::<Place>((DEVICE, id))?,
                    }
                }
                Ok(())
            });
            batch.await
        }
        6 => put_pair::<F, _>(library, pair, &text).await,
        _ => delete_pair::<F, _>(library, pair).await,
    }
}
