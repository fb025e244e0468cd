use std::process::Output;

use crate::gateway::SECRET;

/// The standard output and the standard error of a command.
pub fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

/// Checks that `check` or `start` has ended with a sentence that has these texts.
#[track_caller]
pub fn refused(output: &Output, sentence: &[&str]) {
    let (stdout, stderr) = texts(output);
    assert!(!output.status.success(), "{stdout}{stderr}");
    for text in sentence {
        assert!(stderr.contains(text), "{text:?} is not in: {stderr}");
    }
    assert!(!stderr.contains("panicked") && !stderr.contains(SECRET), "{stderr}");
}
