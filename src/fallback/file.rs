//! A file of failed records, to be looked at, mended and sent again.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::json::put_line;
use crate::completion::{UndeliverableSink, UndeliveredRecord};

/// Appends each record that could not be delivered to a file, as one line of JSON that loses nothing:
///
/// ```json
/// {"topic":"orders","partition":3,"timestamp":1700000000000,"key":"k","value":{"base64":"/w=="},"headers":[["h",null]],
///  "written":"no","attempts":1,"waited_ms":120000,"error":"orders-3: …"}
/// ```
///
/// (without the line break). Keys and values are strings where they are UTF-8, else base64; null is null.
/// `ringmail produce --replay FILE` sends such a file again.
///
/// A line is one write to the system, so it survives the end of the process as soon as the sink returned. It survives the
/// end of the *machine* once it was synced: when the producer ends, or after each record with
/// [`sync_each_record`](Self::sync_each_record). The file is never cut or rotated. A record that cannot be written, say on
/// a full disk, is logged as an error with its place, and the next one starts on a line of its own.
#[derive(Debug)]
pub struct FailedRecordsFile {
    file: File,
    path: PathBuf,
    line: Vec<u8>,
    sync_each: bool,
    /// The file may end in the middle of a line.
    torn: bool,
}

impl FailedRecordsFile {
    /// Opens the file to append to, or makes it. Should it end in the middle of a line, that one is left as it is.
    ///
    /// # Errors
    /// The system's.
    pub fn append(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref().to_path_buf();
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        let mut torn = false;
        if file.metadata()?.is_file() && file.seek(SeekFrom::End(0))? > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            torn = last != *b"\n";
        }
        Ok(Self { file, path, line: Vec::new(), sync_each: false, torn })
    }

    /// Waits after each record until the disk has it (`fdatasync`). Default: only when the producer ends.
    pub fn sync_each_record(mut self) -> Self {
        self.sync_each = true;
        self
    }

    fn write(&mut self) -> io::Result<()> {
        let torn = std::mem::replace(&mut self.torn, true);
        // One write, so that other processes that append to the file do not get in between.
        if torn {
            self.line.insert(0, b'\n');
        }
        self.file.write_all(&self.line)?;
        self.torn = false;
        if self.sync_each { self.file.sync_data() } else { Ok(()) }
    }
}

impl UndeliverableSink for FailedRecordsFile {
    fn undeliverable(&mut self, record: UndeliveredRecord<'_>) {
        self.line.clear();
        put_line(&mut self.line, &record);
        if let Err(error) = self.write() {
            let (topic, partition, path) = (record.topic(), record.partition(), self.path.display());
            tracing::error!(%error, %path, topic, partition, "an undelivered record could not be written to its file");
        }
    }

    fn finish(&mut self, _: Duration) {
        if let Err(error) = self.file.sync_data() {
            tracing::error!(%error, path = %self.path.display(), "the file of undelivered records could not be synced");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::error::{DeliveryError, DeliveryErrorKind};

    #[test]
    fn a_torn_line_stays_alone() {
        let path = std::env::temp_dir().join(format!("ringmail-failed-{}", std::process::id()));
        std::fs::write(&path, "{\"topic\":\"t").unwrap();
        let error = DeliveryError::placeless(DeliveryErrorKind::Closed);
        let topic: Arc<str> = "t".into();
        let cluster = crate::metadata::ClusterName::new(&[]);
        let record = UndeliveredRecord {
            topic: &topic,
            partition: 0,
            key: None,
            value: Some(b"v"),
            headers: &[],
            timestamp: 1,
            error: &error,
            closes_in: None,
            cluster: &cluster,
        };
        for _ in 0..2 {
            let mut file = FailedRecordsFile::append(&path).unwrap().sync_each_record();
            file.undeliverable(record);
            file.undeliverable(record);
            file.finish(Duration::ZERO);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[0]), (5, "{\"topic\":\"t"), "{text}");
        assert!(lines[1..].iter().all(|line| line.starts_with("{\"topic\":\"t\",") && line.ends_with('}')), "{text}");
        assert!(text.ends_with("}\n"));
        assert!(FailedRecordsFile::append("/no/such/folder/file").is_err());
    }
}
