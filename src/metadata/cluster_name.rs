//! Which cluster a producer sends to, as far as it knows.

use std::sync::{Arc, Mutex, PoisonError};

/// A cluster's own id, once a broker has told it, and the servers that the producer was given.
#[derive(Debug)]
pub struct ClusterName {
    servers: Vec<(String, u16)>,
    id: Mutex<Option<Arc<str>>>,
}

impl ClusterName {
    /// Nothing is known but `bootstrap.servers`.
    pub fn new(servers: &[(String, u16)]) -> Self {
        Self { servers: servers.to_vec(), id: Mutex::new(None) }
    }

    fn id(&self) -> Option<Arc<str>> {
        self.id.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A broker told its cluster's id.
    pub fn set_id(&self, id: &str) {
        let mut known = self.id.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_deref() != Some(id) {
            *known = Some(id.into());
        }
    }

    /// Both are the same cluster: by their ids; while one of these is not known, if they share a server.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self.id(), other.id()) {
            (Some(one), Some(other)) => one == other,
            _ => self.servers.iter().any(|server| other.servers.contains(server)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_count_and_servers_where_there_are_none() {
        let name = |servers: &[&str]| {
            ClusterName::new(&servers.iter().map(|host| ((*host).to_owned(), 9092)).collect::<Vec<_>>())
        };
        let (one, other) = (name(&["a", "b"]), name(&["c", "b"]));
        assert!(one.is_same(&other) && !one.is_same(&name(&["c"])), "a shared server");
        one.set_id("X");
        assert!(one.is_same(&other), "one id alone says nothing");
        other.set_id("Y");
        assert!(!one.is_same(&other), "one host, two clusters behind it");
        let renamed = name(&["z"]);
        renamed.set_id("X");
        assert!(one.is_same(&renamed));
    }
}
