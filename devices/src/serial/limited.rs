//! A guest that writes more than it may.

use std::io::{self, Write};
use std::time::Instant;

use crate::limiter::{BucketConfig, TokenBucket};

/// Takes as many bytes in a time as a bucket has tokens for. What is too much is lost at once, with the error
/// [`QuotaExceeded`](io::ErrorKind::QuotaExceeded): a guest that may not write does not wait either, so that its kernel's
/// messages cannot hold it up.
#[derive(Debug)]
pub struct LimitedWriter<W> {
    inner: W,
    bucket: Option<TokenBucket>,
    origin: Instant,
}

impl<W: Write> LimitedWriter<W> {
    /// Wraps `inner`; a bucket of no size limits nothing.
    pub fn new(inner: W, limit: BucketConfig) -> Self {
        let origin = Instant::now();
        Self {
            inner,
            bucket: TokenBucket::new(limit, origin.elapsed()),
            origin,
        }
    }
}

impl<W: Write> Write for LimitedWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let Some(bucket) = &mut self.bucket else {
            return self.inner.write(data);
        };
        if !bucket.wait(self.origin.elapsed()).is_zero() {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let written = self.inner.write(data)?;
        bucket.take(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
