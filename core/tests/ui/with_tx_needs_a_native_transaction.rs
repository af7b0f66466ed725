use async_trait::async_trait;
use syncline::{Error, Key, KeyRange, ReadError, ScanLimit, ScanPage, Storage, TransactionManager, Value, WriteBatch, WriteError};

/// A store of three methods, as most are.
struct Plain;

#[async_trait]
impl Storage for Plain {
    async fn get_many(&self, _: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        Ok(Vec::new())
    }

    async fn scan(&self, _: KeyRange, _: ScanLimit) -> Result<ScanPage, ReadError> {
        Ok(ScanPage::default())
    }

    async fn write(&self, _: WriteBatch) -> Result<(), WriteError> {
        Ok(())
    }
}

async fn on_a_plain_store(library: TransactionManager<Plain>) -> Result<(), Error> {
    library.with_tx(|_| Ok(())).await
}

async fn on_any_store(library: TransactionManager<Box<dyn Storage>>) -> Result<(), Error> {
    library.with_tx(|_| Ok(())).await
}

fn main() {}
