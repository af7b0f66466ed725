//! Reads and writes of the engine, in pieces of the sizes that a store takes.
//!
//! The engine reads all records of a write at once, which are more than a store is asked for in one call. In pieces they are of one
//! state all the same: the engine reads them while no write is under way.
//!
//! The rows of a commit fit into one batch, since the limits are [lowered](crate::Limits) to what the store
//! takes. What it displaces need not fit: the values of other commits that the log still needs, which are as long as
//! their authors made them. These are written ahead, in batches of their own. A value that is kept while its record
//! still holds it harms nothing: it is read as the same value, and is deleted with its log row.

use crate::storage::{
    GET_KEYS_MAX, Key, ReadError, Storage, StoreLimits, Value, WriteBatch, WriteError, WriteOp,
};
use crate::stored::keys;

/// Reads the values of any number of keys.
pub(crate) async fn get_many(store: &impl Storage, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
    if keys.len() <= GET_KEYS_MAX {
        return store.get_many(keys).await;
    }
    let mut values = Vec::with_capacity(keys.len());
    for piece in keys.chunks(GET_KEYS_MAX) {
        let found = store.get_many(piece).await?;
        if found.len() != piece.len() {
            return Err(ReadError::new(format!("{} values for {} keys", found.len(), piece.len())));
        }
        values.extend(found);
    }
    Ok(values)
}

/// Writes a batch. If an error says that it was not applied, values may be kept all the same.
pub(crate) async fn write(store: &impl Storage, batch: WriteBatch) -> Result<(), WriteError> {
    let limits = store.limits();
    if batch.ops().len() <= limits.batch_ops && batch.bytes() <= limits.batch_bytes {
        return store.write(batch).await;
    }
    let (ahead, batch) = keeping_ahead(batch, limits);
    for kept in ahead {
        store.write(kept).await?;
    }
    store.write(batch).await
}

/// Takes the values that are kept out of a batch, as batches that come before it.
fn keeping_ahead(batch: WriteBatch, limits: StoreLimits) -> (Vec<WriteBatch>, WriteBatch) {
    let (kept, rest): (Vec<_>, Vec<_>) = batch.into_iter().partition(is_kept);
    let (mut ahead, mut piece, mut bytes) = (Vec::new(), Vec::new(), 0);
    for op in kept {
        let more = op.bytes();
        let is_full = piece.len() >= limits.batch_ops || bytes + more > limits.batch_bytes;
        if is_full && !piece.is_empty() {
            ahead.push(WriteBatch::from(std::mem::take(&mut piece)));
            bytes = 0;
        }
        bytes += more;
        piece.push(op);
    }
    ahead.extend((!piece.is_empty()).then(|| WriteBatch::from(piece)));
    (ahead, rest.into())
}

fn is_kept(op: &WriteOp) -> bool {
    matches!(op, WriteOp::Put { key, .. } if keys::is_kept(key))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use futures::executor::block_on;

    use super::*;
    use crate::ids::ReplicaId;
    use crate::storage::{KeyRange, ScanLimit, ScanPage};
    use crate::stored::keys::RecordKey;

    /// A store that notes how much it is asked for.
    #[derive(Default)]
    struct Noting {
        read: Mutex<Vec<usize>>,
        written: Mutex<Vec<WriteBatch>>,
        /// The write that fails.
        fails: Option<usize>,
    }

    const LIMITS: StoreLimits = StoreLimits { batch_ops: 4, batch_bytes: 300, ..StoreLimits::CONTRACT };

    #[async_trait]
    impl Storage for Noting {
        async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
            self.read.lock().unwrap().push(keys.len());
            Ok(keys.iter().cloned().map(Some).collect())
        }

        async fn scan(&self, _: KeyRange, _: ScanLimit) -> Result<ScanPage, ReadError> {
            Ok(ScanPage::default())
        }

        async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
            let mut written = self.written.lock().unwrap();
            if self.fails == Some(written.len()) {
                return Err(WriteError::rejected("full"));
            }
            written.push(batch);
            Ok(())
        }

        fn limits(&self) -> StoreLimits {
            LIMITS
        }
    }

    #[test]
    fn keys_are_read_a_thousand_at_a_time_and_keep_their_order() {
        for count in [0, 1, GET_KEYS_MAX, GET_KEYS_MAX + 1, 3 * GET_KEYS_MAX] {
            let (store, keys) =
                (Noting::default(), (0..count).map(|n| n.to_be_bytes().to_vec()).collect::<Vec<_>>());
            let values = block_on(get_many(&store, &keys)).unwrap();
            assert_eq!(values, keys.iter().cloned().map(Some).collect::<Vec<_>>());
            let read = store.read.lock().unwrap();
            assert!(
                read.iter().all(|read| *read <= GET_KEYS_MAX) && read.iter().sum::<usize>() == count,
                "{read:?}"
            );
        }
    }

    fn kept(n: u8, bytes: usize) -> (Key, Value) {
        let record = RecordKey::from_parts("note", None, &[n]);
        (keys::kept(ReplicaId::from_bytes([1; 16]), 7, &record), vec![n; bytes])
    }

    fn batch(kept_bytes: &[usize]) -> WriteBatch {
        let mut batch = WriteBatch::new();
        batch.put(*b"\x10first", *b"a record");
        for (n, bytes) in (0..).zip(kept_bytes) {
            let (key, value) = kept(n, *bytes);
            batch.put(key, value);
        }
        batch.put(*b"\x02head", *b"a head");
        batch
    }

    #[test]
    fn a_batch_that_fits_is_written_as_it_is() {
        let store = Noting::default();
        block_on(write(&store, batch(&[100, 80]))).unwrap();
        assert_eq!(*store.written.lock().unwrap(), [batch(&[100, 80])]);
    }

    #[test]
    fn values_that_are_kept_come_before_a_batch_that_is_too_large() {
        for sizes in [&[100, 100, 100][..], &[10, 10, 10], &[200; 9], &[1000, 1]] {
            let store = Noting::default();
            block_on(write(&store, batch(sizes))).unwrap();
            let written = store.written.lock().unwrap();
            let (last, ahead) = written.split_last().unwrap();
            assert_eq!(*last, batch(&[]), "{sizes:?}");
            let ops: Vec<_> = ahead.iter().flat_map(WriteBatch::ops).cloned().collect();
            assert_eq!(ops, batch(sizes).ops()[1..=sizes.len()], "{sizes:?}");
            for batch in ahead {
                let fits = batch.ops().len() <= LIMITS.batch_ops && batch.bytes() <= LIMITS.batch_bytes;
                assert!(fits || batch.ops().len() == 1, "{sizes:?}: {batch:?}");
            }
        }
    }

    #[test]
    fn nothing_is_written_behind_a_write_that_failed() {
        for fails in 0..3 {
            let store = Noting { fails: Some(fails), ..Noting::default() };
            block_on(write(&store, batch(&[200, 200]))).unwrap_err();
            assert_eq!(store.written.lock().unwrap().len(), fails);
        }
    }
}
