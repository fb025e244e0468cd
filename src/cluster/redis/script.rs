//! Scripts, run by their hash.

use ::redis::{Cmd, Script, Value, cmd};
use bytes::Bytes;

use super::call_error::CallError;
use super::link::Link;

/// A script with its hash.
#[derive(Clone, Debug)]
pub(super) struct HashedScript {
    source: &'static str,
    hash: Box<str>,
}

impl HashedScript {
    pub(super) fn new(source: &'static str) -> Self {
        Self { source, hash: Script::new(source).get_hash().into() }
    }

    /// Runs the script, and teaches it to a server that does not know it.
    ///
    /// # Errors
    /// Returns those of the link, and what the script refuses.
    pub(super) async fn run(
        &self,
        link: &mut Link,
        key: &Bytes,
        args: &[Bytes],
    ) -> Result<Value, CallError> {
        let invocation = self.invocation(key, args);
        match link.request(&invocation).await {
            Err(CallError::ScriptUnknown) => {
                self.load(link).await?;
                link.request(&invocation).await
            }
            answer => answer,
        }
    }

    /// Teaches the script to the server.
    ///
    /// # Errors
    /// Returns those of the link; scripts may be forbidden.
    pub(super) async fn load(&self, link: &mut Link) -> Result<(), CallError> {
        link.request(cmd("SCRIPT").arg("LOAD").arg(self.source)).await.map(drop)
    }

    fn invocation(&self, key: &Bytes, args: &[Bytes]) -> Cmd {
        let bytes = args.iter().map(Bytes::len).sum::<usize>() + key.len() + self.hash.len();
        let mut invocation = Cmd::with_capacity(args.len() + 4, bytes + "EVALSHA1".len());
        invocation.arg("EVALSHA").arg(&*self.hash).arg(1).arg(&key[..]);
        for arg in args {
            invocation.arg(&arg[..]);
        }
        invocation
    }
}
