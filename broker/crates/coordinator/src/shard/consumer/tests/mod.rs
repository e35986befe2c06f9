//! Consumer groups by value: this request in this state gives these records and this reply.

mod bench;
mod members;
mod migration;
mod random;
mod tools;
