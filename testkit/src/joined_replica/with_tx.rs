//! What `with_tx` does if nothing fails.

use futures::FutureExt as _;
use futures::future::{join, join_all};
use syncline::{ChangeKind, Error, Event, ReplicaId, Uuid};

use super::app::{PAIRED, assert_paired, put_pair, rows, run_projecting};
use crate::models::{Note, Place, note};
use crate::replica::app::{DEVICE, GROUP, ask, assert_whole, drain, open_store, place, run, run_on, soon};
use crate::replica::calls::{assert_refused_inside, first_answers};
use crate::{Gate, Gated, JoinFixture};

/// One call commits the app's row, the records, one log entry and the clock. Its events come, and it returns the value
/// of the closure.
pub async fn with_tx_commits_all_together<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    run_on(fixture, async |library| {
        let mut events = library.events();
        let before = library.status().await.unwrap();
        let made = library.with_tx(|tx| {
            F::put_row(tx.native(), 1, "row")?;
            tx.put(&note(1, "a"))?;
            tx.put(&place(2, "b"))?;
            tx.put(&note(3, "gone"))?;
            tx.delete::<Note>(3)?;
            F::put_row(tx.native(), 2, "row")?;
            Ok("made")
        });
        assert_eq!(made.await.unwrap(), "made");
        let after = library.status().await.unwrap();
        assert_eq!(after.commits, before.commits + 1);
        let told = drain(&mut events).await;
        assert_eq!(told.len(), 2, "{told:?}");
        for event in told {
            let Event::Changed(change) = event else { panic!("{event:?} is no change") };
            assert_eq!((change.kind, change.seq), (ChangeKind::Insert, after.commits));
            assert_eq!((change.stamp, change.origin), (after.clock, DEVICE));
        }
        assert_eq!(library.get::<Note>(3).await.unwrap(), None);
    })
    .await;
    assert_whole(fixture, "after a joined commit").await;
    run_on(fixture, async |library| {
        assert_eq!(library.get::<Note>(1).await.unwrap(), Some(note(1, "a")), "reopened");
        assert_eq!(library.get::<Place>((DEVICE, 2)).await.unwrap(), Some(place(2, "b")), "reopened");
        let rows = rows::<F, _>(&library).await;
        assert_eq!(rows, [(1, "row".to_owned()), (2, "row".to_owned())].into(), "reopened");
        // A delete gets the next sequence number and a higher stamp: the head and the clock were stored.
        let before = library.status().await.unwrap();
        library.with_tx(|tx| Ok(tx.delete::<Note>(1)?)).await.unwrap();
        let after = library.status().await.unwrap();
        assert_eq!(after.commits, before.commits + 1);
        assert!(after.clock > before.clock);
    })
    .await;
    assert_whole(fixture, "after a joined delete").await;
}

/// Inside the closure, `get` sees what was committed and what is staged, and the native transaction sees its own rows.
pub async fn with_tx_sees_what_it_stages<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    run_on(fixture, async |library| {
        library.commit(note(1, "stored")).await.unwrap();
        library.commit(note(2, "stored")).await.unwrap();
        let seen = library.with_tx(|tx| {
            let mut seen = vec![tx.get::<Note>(1)?, tx.get::<Note>(3)?];
            tx.put(&note(1, "staged"))?;
            tx.put(&note(3, "staged"))?;
            tx.delete::<Note>(2)?;
            seen.extend([tx.get::<Note>(1)?, tx.get::<Note>(2)?, tx.get::<Note>(3)?]);
            tx.delete::<Note>(3)?;
            seen.push(tx.get::<Note>(3)?);
            F::put_row(tx.native(), 1, "row")?;
            assert_eq!(F::rows(tx.native())?, [(1, "row".to_owned())]);
            Ok(seen)
        });
        let (stored, staged) = (Some(note(1, "stored")), |id| Some(note(id, "staged")));
        assert_eq!(seen.await.unwrap(), [stored, None, staged(1), None, staged(3), None]);
        // The next closure sees the last commit, joined or not.
        let seen = library.with_tx(|tx| Ok((tx.get::<Note>(1)?, tx.get::<Note>(2)?)));
        assert_eq!(seen.await.unwrap(), (staged(1), None));
        library.commit(note(2, "committed")).await.unwrap();
        let seen = library.with_tx(|tx| Ok(tx.get::<Note>(2)?));
        assert_eq!(seen.await.unwrap(), Some(note(2, "committed")));
    })
    .await;
    assert_whole(fixture, "after reading inside").await;
}

/// A closure that stages nothing, or only what is there already, commits the app's row and no log entry.
pub async fn with_tx_without_changes_commits_the_app_alone<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    run_on(fixture, async |library| {
        library.commit(note(1, "a")).await.unwrap();
        let mut events = library.events();
        let before = library.status().await.unwrap();
        library.with_tx(|tx| F::put_row(tx.native(), 1, "row")).await.unwrap();
        let same = library.with_tx(|tx| {
            F::put_row(tx.native(), 2, "row")?;
            tx.delete::<Note>(9)?;
            Ok(tx.put(&note(1, "a"))?)
        });
        same.await.unwrap();
        assert_eq!(library.status().await.unwrap(), before);
        assert_eq!(drain(&mut events).await, []);
    })
    .await;
    run_on(fixture, async |library| assert_eq!(rows::<F, _>(&library).await.len(), 2, "reopened")).await;
    assert_whole(fixture, "after joins without changes").await;
}

/// A closure that stages nothing needs no right to commit: a replica that waits for its group keeps the app's own rows,
/// and refuses the closure that stages a record, whole.
pub async fn with_tx_of_the_app_alone_works_while_joining<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let introducer = ReplicaId(Uuid::from_u128(7));
    let joiner = ask(open_store(fixture).await).join(GROUP, introducer);
    run(joiner, async |library| {
        library.with_tx(|tx| F::put_row(tx.native(), 1, "row")).await.unwrap();
        let refused = library.with_tx(|tx| {
            F::put_row(tx.native(), 2, "lost")?;
            Ok(tx.put(&note(1, "lost"))?)
        });
        let refused = refused.await;
        assert!(matches!(refused, Err(Error::Joining { .. })), "{refused:?}");
        assert_eq!(rows::<F, _>(&library).await, [(1, "row".to_owned())].into());
        let status = library.status().await.unwrap();
        assert!(status.joining.is_some() && status.commits == 0, "{status:?}");
    })
    .await
    .unwrap();
    assert_whole(fixture, "after statements of a joiner").await;
}

/// X5: a call inside the closure is refused at once, whichever it is, and does nothing.
pub async fn a_call_from_inside_with_tx_is_refused<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    run_on(fixture, async |library| {
        let inner = library.clone();
        let made = library.with_tx(move |tx| {
            assert_refused_inside(&first_answers(&inner));
            let joined = inner.with_tx(|_| Ok(())).now_or_never();
            assert!(matches!(joined, Some(Err(Error::InsideClosure))), "{joined:?}");
            F::put_row(tx.native(), 1, "row")?;
            Ok(tx.put(&note(1, "a"))?)
        });
        made.await.unwrap();
        library.commit(note(2, "after")).await.unwrap();
        assert_eq!(library.status().await.unwrap().commits, 3);
        assert_eq!(library.get::<Note>(9).await.unwrap(), None);
    })
    .await;
    assert_whole(fixture, "after calls inside a joined write").await;
}

/// Reply, event, row and record come after the store has said that the join is durable, and none of them before.
pub async fn with_tx_is_told_once_it_is_durable<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let gate = Gate::new();
    let (library, driver) = ask(Gated::writes(open_store(fixture).await, gate.clone())).open().await.unwrap();
    let app = async {
        let library = library;
        let mut events = library.events();
        gate.close();
        let mut commit = Box::pin(put_pair::<F, _>(&library, PAIRED, "a"));
        assert!(soon(&mut commit).await.is_none(), "a reply before the join");
        assert_eq!(drain(&mut events).await, [], "an event before the join");
        assert_eq!(library.get::<Note>(PAIRED).await.unwrap(), None, "visible before the join");
        assert_eq!(library.status().await.unwrap().commits, 1, "counted before the join");
        gate.open();
        commit.await.unwrap();
        assert_eq!(drain(&mut events).await.len(), 1);
        assert_paired::<F, _>(&library, "after waiting").await;
    };
    join(driver.run(), app).await.0.unwrap();
    assert_whole(fixture, "after waiting for the store").await;
}

/// Plain commits, updates and joined commits take effect in the order in which they were first polled. Their sequence
/// numbers have no holes and their stamps rise.
pub async fn commits_and_with_tx_keep_their_order<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    const CALLS: u32 = 24;
    async fn calls<F: JoinFixture, S>(library: &syncline::TransactionManager<S>, projected: bool)
    where
        S: for<'t> syncline::JoinStorage<Tx<'t> = <F::Store as syncline::JoinStorage>::Tx<'t>>,
    {
        let mut events = library.events();
        let before = library.status().await.unwrap().commits;
        // Each call appends its number to the text that it finds, so that the text shows the order.
        let call = async |n: u32| match n % 3 {
            0 => {
                let append = library.with_tx(move |tx| {
                    let old = tx.get::<Note>(1)?.map_or_else(String::new, |note| note.text);
                    Ok(tx.put(&note(1, format!("{old}{n} ")))?)
                });
                append.await.unwrap();
            }
            1 => {
                let append = library.update::<Note, _>(1, move |old| {
                    Ok(note(1, format!("{}{n} ", old.map_or_else(String::new, |note| note.text))))
                });
                append.await.unwrap();
            }
            _ => drop(library.commit(note(100 + n, "beside")).await.unwrap()),
        };
        join_all((0..CALLS).map(call)).await;
        let expected: String = (0..CALLS).filter(|n| n % 3 < 2).map(|n| format!("{n} ")).collect();
        let found = library.get::<Note>(1).await.unwrap().unwrap().text;
        assert_eq!(found, expected, "projected: {projected}");
        let changes = drain(&mut events).await.into_iter().filter_map(|event| match event {
            Event::Changed(change) => Some((change.seq, change.stamp)),
            _ => None,
        });
        let (seqs, stamps): (Vec<_>, Vec<_>) = changes.unzip();
        let expected: Vec<_> = (before + 1..).take(usize::try_from(CALLS).unwrap()).collect();
        assert_eq!(seqs, expected, "projected: {projected}");
        assert!(stamps.is_sorted_by(|before, after| before < after), "projected: {projected}: {stamps:?}");
    }
    run_on(fixture, async |library| calls::<F, _>(&library, false).await).await;
    assert_whole(fixture, "after calls in order").await;
    run_on(fixture, async |library| {
        library.delete::<Note>(1).await.unwrap();
        let gone = (0..CALLS).map(|n| library.delete::<Note>(100 + n));
        join_all(gone).await.into_iter().for_each(Result::unwrap);
    })
    .await;
    run_projecting(fixture, async |library| {
        calls::<F, _>(&library, true).await;
    })
    .await;
    super::app::assert_all_agree(fixture, "after calls in order").await;
}
