//! The records on disk: one redb file, each change one durable transaction.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Record, VmId};

/// The layout of what lies in the tables. A change that older agents cannot read counts it up. 1 had no user ids: its VMs
/// ran without a jail.
const SCHEMA_VERSION: u64 = 2;

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const VMS: TableDefinition<&str, &[u8]> = TableDefinition::new("vms");
const VERSION_KEY: &str = "schema_version";

/// Records that survive the agent and the machine.
#[derive(Debug)]
pub struct Store {
    /// None after an error of the disk: then redb refuses everything until it is opened anew. What was committed is there
    /// again, and what failed has not happened.
    database: Mutex<Option<Database>>,
    path: PathBuf,
}

/// Why records cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is there, and is no store that can be opened.
    #[error(
        "open records {path}: {source}; restore the file from a backup, or move it away to begin with none \
         (microVMs without a record are ended then)"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
    /// Another process has it open.
    #[error("records {path} are in use by another process; end that one")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer agent.
    #[error(
        "records {path} have schema version {found}, this agent reads {SCHEMA_VERSION}; install the newer agent"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// The file was written by an agent that did not lock its VMs in.
    #[error(
        "records {path} have schema version {found}, this agent reads {SCHEMA_VERSION}; remove all microVMs with the agent \
         that wrote it (`secovia rm`), then move the file away"
    )]
    Older {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// A record is not what this version writes.
    #[error("record {key} in {path}: {source}; restore the file from a backup")]
    Record {
        /// The file.
        path: PathBuf,
        /// Whose record.
        key: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A transaction failed.
    #[error("{operation} in records {path}: {source}; check the disk and its free space")]
    Transaction {
        /// What was to be done.
        operation: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
}

impl Store {
    /// Opens the store at `path`, or makes an empty one, readable by its owner only.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |source: redb::Error| StoreError::Open {
            path: path.to_path_buf(),
            source: Box::new(source),
        };
        let database = open_file(path).map_err(|error| match error {
            redb::Error::DatabaseAlreadyOpen => StoreError::InUse {
                path: path.to_path_buf(),
            },
            error => failed(error),
        })?;
        let store = Self {
            database: Mutex::new(Some(database)),
            path: path.to_path_buf(),
        };
        match store.prepare().map_err(failed)? {
            SCHEMA_VERSION => Ok(store),
            found @ ..SCHEMA_VERSION => Err(StoreError::Older {
                path: store.path,
                found,
            }),
            found => Err(StoreError::Newer {
                path: store.path,
                found,
            }),
        }
    }

    /// Makes the tables where they are missing, and returns the schema's version.
    fn prepare(&self) -> Result<u64, redb::Error> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            let found = {
                let mut meta = transaction.open_table(META)?;
                let found = meta.get(VERSION_KEY)?.map(|value| value.value());
                if found.is_none() {
                    meta.insert(VERSION_KEY, SCHEMA_VERSION)?;
                }
                transaction.open_table(VMS)?;
                found.unwrap_or(SCHEMA_VERSION)
            };
            transaction.commit()?;
            Ok(found)
        })
    }

    /// Does something with the database, which is opened anew where the disk failed before.
    fn with<T>(&self, act: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
        let mut slot = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let database = match slot.take() {
            Some(database) => database,
            None => open_file(&self.path)?,
        };
        let result = act(&database);
        if !matches!(result, Err(redb::Error::Io(_) | redb::Error::PreviousIo)) {
            *slot = Some(database);
        }
        result
    }

    /// All records, oldest first.
    pub fn all(&self) -> Result<Vec<Record>, StoreError> {
        let pairs = self
            .read_all()
            .map_err(|source| self.failed("read all".into(), source))?;
        let mut records = Vec::with_capacity(pairs.len());
        for (key, bytes) in pairs {
            let record: Record = serde_json::from_slice(&bytes).map_err(|source| StoreError::Record {
                path: self.path.clone(),
                key,
                source,
            })?;
            records.push(record);
        }
        records.sort_by_key(|record| (record.created_ms, record.id));
        Ok(records)
    }

    fn read_all(&self) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
        self.with(|database| {
            let transaction = database.begin_read()?;
            let table = transaction.open_table(VMS)?;
            let mut pairs = Vec::new();
            for entry in table.iter()? {
                let (key, value) = entry?;
                pairs.push((key.value().to_string(), value.value().to_vec()));
            }
            Ok(pairs)
        })
    }

    /// Writes a record. It is on the disk when this returns.
    pub fn put(&self, record: &Record) -> Result<(), StoreError> {
        let operation = || format!("write {}", record.id);
        let bytes = serde_json::to_vec(record)
            .map_err(|error| self.failed(operation(), redb::Error::Io(io::Error::other(error))))?;
        self.write(|table| {
            table
                .insert(record.id.to_string().as_str(), bytes.as_slice())
                .map(|_| ())
        })
        .map_err(|source| self.failed(operation(), source))
    }

    /// Removes a record. It is gone from the disk when this returns.
    pub fn remove(&self, id: VmId) -> Result<(), StoreError> {
        self.write(|table| table.remove(id.to_string().as_str()).map(|_| ()))
            .map_err(|source| self.failed(format!("remove {id}"), source))
    }

    fn write(
        &self,
        change: impl FnOnce(&mut redb::Table<'_, &'static str, &'static [u8]>) -> Result<(), redb::StorageError>,
    ) -> Result<(), redb::Error> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(VMS)?;
                change(&mut table)?;
            }
            transaction.commit()?;
            Ok(())
        })
    }

    fn failed(&self, operation: String, source: redb::Error) -> StoreError {
        StoreError::Transaction {
            operation,
            path: self.path.clone(),
            source: Box::new(source),
        }
    }
}

/// Opens the file, readable by its owner only, and makes it where it is missing.
fn open_file(path: &Path) -> Result<Database, redb::Error> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(redb::Error::Io)?;
    let backend = FileBackend::new(file)?;
    Ok(Database::builder().create_with_backend(backend)?)
}
