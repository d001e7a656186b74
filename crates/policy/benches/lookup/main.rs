//! How long a decision takes, compared with other ways to find it.
//!
//! `cargo bench -p sluice-policy --features std --bench lookup [-- WORDS]` prints tables; WORDS choose among v4, lists,
//! v6, names, rules and identities.
//! With `SLUICE_DATA` naming a folder of real prefixes, names and ClassBench sets, those are measured; without,
//! generated ones of the same size and shape. Contenders take turns in each round, so that other load on the machine
//! hits all of them; it prints the medians of the rounds and their ratios.

mod data;
mod identities;
mod names;
mod prefixes;
mod rules;
mod timing;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| word == name);
    if wanted("v4") {
        prefixes::v4();
    }
    if wanted("lists") {
        prefixes::lists();
    }
    if wanted("v6") {
        prefixes::v6();
    }
    if wanted("names") {
        names::run();
    }
    if wanted("rules") {
        rules::run();
    }
    if wanted("identities") {
        identities::run();
    }
}
