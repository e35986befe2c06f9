//! The crate through its public face.

mod load;
mod reference;
