//! Reads the input on a thread of its own, so that Ctrl-C is heard while nobody types.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};

/// Bytes asked for in one read. A read returns what is there, so a typed line comes at once.
const CHUNK: usize = 256 * 1024;
/// Chunks read ahead: the input's share of memory is `CHUNK` times one more than this, plus one line.
const AHEAD: usize = 3;

/// An opened input.
pub struct Input {
    reader: Box<dyn Read + Send>,
    /// Bytes in all, when it is an ordinary file.
    pub size: Option<u64>,
    /// Somebody types: no progress bar is drawn over what they type.
    pub is_terminal: bool,
    name: PathBuf,
}

impl Input {
    /// Opens a file; `-` or nothing is standard input. The error says which file.
    pub fn open(file: Option<&Path>) -> Result<Self, String> {
        match file.filter(|path| *path != Path::new("-")) {
            Some(path) => {
                let opened = File::open(path).map_err(|e| format!("cannot open {}: {e}", path.display()))?;
                let metadata = opened.metadata().map_err(|e| format!("cannot open {}: {e}", path.display()))?;
                if metadata.is_dir() {
                    return Err(format!("{} is a directory", path.display()));
                }
                let size = metadata.is_file().then_some(metadata.len());
                let is_terminal = opened.is_terminal();
                Ok(Self { reader: Box::new(opened), size, is_terminal, name: path.to_path_buf() })
            }
            None => {
                let stdin = io::stdin();
                let is_terminal = stdin.is_terminal();
                Ok(Self { reader: Box::new(stdin), size: None, is_terminal, name: "standard input".into() })
            }
        }
    }

    /// Starts to read. The channel ends after the last chunk, or after an error that says what was read.
    pub fn chunks(mut self) -> Receiver<Result<Vec<u8>, String>> {
        let (sender, receiver) = sync_channel(AHEAD);
        std::thread::spawn(move || {
            let mut buffer = vec![0; CHUNK];
            loop {
                let chunk = match self.reader.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(n) => Ok(buffer[..n].to_vec()),
                    Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                    Err(e) => Err(format!("cannot read {}: {e}", self.name.display())),
                };
                let failed = chunk.is_err();
                if sender.send(chunk).is_err() || failed {
                    return;
                }
            }
        });
        receiver
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole() {
        let path = std::env::temp_dir().join(format!("ringmail-input-{}", std::process::id()));
        let content: Vec<u8> = (0..CHUNK * 2 + 17).map(|i| i as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let input = Input::open(Some(&path)).unwrap();
        assert_eq!(input.size, Some(content.len() as u64));
        let read: Vec<u8> = input.chunks().iter().flat_map(|chunk| chunk.unwrap()).collect();
        std::fs::remove_file(&path).unwrap();
        assert!(read == content);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |path: &str| Input::open(Some(Path::new(path))).err().unwrap();
        assert!(error("/no/such/file").contains("/no/such/file"));
        assert_eq!(error("/"), "/ is a directory");
    }
}
