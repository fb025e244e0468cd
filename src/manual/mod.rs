//! Floor 9. The manual: one chapter for each question of an operator.
//!
//! The module has no code. Its chapters are the Markdown files beside this one, so that a code host
//! shows them too. `README.md` lists them in the order in which an operator needs them.

/// Declares one empty module per chapter and takes the chapter as its documentation.
///
/// A chapter ends with definitions that lead its links to the other files. Markdown takes the first
/// definition of a label, so the ones here, which precede each chapter, lead the same links to
/// modules.
macro_rules! chapters {
    ($($name:ident)*) => {$(
        /// [front page]: crate
        /// [tuning]: crate::manual::host
        ///
        /// [addresses]: crate::manual::addresses
        /// [building]: crate::manual::building
        /// [cluster]: crate::manual::cluster
        /// [commands]: crate::manual::commands
        /// [containers]: crate::manual::containers
        /// [guarantees]: crate::manual::guarantees
        /// [host]: crate::manual::host
        /// [import]: crate::manual::import
        /// [laravel]: crate::manual::laravel
        /// [limits]: crate::manual::limits
        /// [logs]: crate::manual::logs
        /// [measuring]: crate::manual::measuring
        /// [memory]: crate::manual::memory
        /// [nginx]: crate::manual::nginx
        /// [pusher]: crate::manual::pusher
        /// [reload]: crate::manual::reload
        /// [restarts]: crate::manual::restarts
        /// [services]: crate::manual::services
        /// [settings]: crate::manual::settings
        /// [sizing]: crate::manual::sizing
        /// [soketi]: crate::manual::soketi
        /// [users]: crate::manual::users
        /// [watch]: crate::manual::watch
        /// [webhooks]: crate::manual::webhooks
        ///
        #[doc = include_str!(concat!(stringify!($name), ".md"))]
        pub mod $name {}
    )*};
}

chapters! {
    laravel soketi pusher import
    building nginx services containers cluster reload restarts logs watch
    webhooks users
    guarantees sizing measuring host
    settings commands limits addresses memory
}
