//! Transactions against a cluster in memory that keeps Kafka's rules: each of these fails without one of the guards in
//! `transactions.rs`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use takhin_client::{
    Batches, ClientError, Compression, OnRetry, Packed, Record, TransactionConfig, Transactions,
};
use takhin_runtime::Env;
use takhin_runtime::sim::Sim;

use crate::client;
use crate::cluster::{Cluster, Moods, REFUSED, TOPIC};

/// How long a transaction may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A part of a round trip.
const STEP: Duration = Duration::from_micros(50);

fn transactions(env: &Env) -> Transactions {
    let config = TransactionConfig {
        id: "one".into(),
        timeout: TIMEOUT,
        compression: Compression::None,
        on_retry: OnRetry::default(),
    };
    Transactions::new(client(env.clone()), config)
}

fn batch(values: impl IntoIterator<Item = usize>) -> Batches {
    let records = values.into_iter().map(|value| Record::of(value.to_string()));
    packed(&records.collect::<Vec<_>>())
}

fn packed(records: &[Record]) -> Batches {
    vec![((Arc::from(TOPIC), 0), Packed::of(records, 0))]
}

/// What readers of committed records see are the numbers from 0 on, each once.
fn check(cluster: &Cluster, count: usize, seed: u64) {
    let numbers: Vec<_> = (0..count).map(|number| Bytes::from(number.to_string())).collect();
    assert_eq!(cluster.committed(), numbers, "seed {seed}");
}

/// Writes numbers from where committed ones end, some in two batches, and begins anew after any failure.
async fn count_on(cluster: &Cluster, transactions: &mut Transactions, to: usize) -> Result<(), ClientError> {
    loop {
        transactions.begin().await?;
        // Nothing is open by now: what is there is there for good.
        let mut next = cluster.committed().len();
        let done = async {
            while next < to {
                let (half, end) = (next + 1, next + 1 + next % 3);
                transactions.write(batch(next..half)).await?;
                if half < end {
                    transactions.write(batch(half..end)).await?;
                }
                transactions.commit().await?;
                next = end;
            }
            Ok::<_, ClientError>(())
        };
        match done.await {
            Err(error) if !error.is_fenced() => {}
            done => return done,
        }
    }
}

#[test]
fn every_number_is_committed_once_whatever_is_lost() {
    for seed in 0..60 {
        let mut sim = Sim::new(seed);
        let moods = Moods {
            drop_before: 0.1,
            drop_after: 0.2,
            move_leader: 0.05,
            ..Moods::default()
        };
        let (cluster, machines) = Cluster::new(&mut sim, moods);
        let at = cluster.clone();
        sim.run(|env| async move {
            at.start(&machines).await;
            count_on(&at, &mut transactions(&env), 60).await.unwrap();
        });
        let count = cluster.committed().len();
        assert!(count >= 60);
        check(&cluster, count, seed);
    }
}

/// What fails leaves a transaction open: what is written next must not be in it.
#[test]
fn what_failed_is_not_committed_with_what_follows() {
    let mut sim = Sim::new(1);
    let (cluster, machines) = Cluster::new(&mut sim, Moods::default());
    let at = cluster.clone();
    sim.run(|env| async move {
        at.start(&machines).await;
        let mut transactions = transactions(&env);
        transactions.begin().await.unwrap();
        transactions.write(batch(0..1)).await.unwrap();
        let refused = packed(&[Record::of(REFUSED)]);
        transactions.write(refused).await.unwrap_err();
        // Nobody but a new beginning knows what is open.
        let closed = transactions.write(batch(1..2)).await.unwrap_err();
        assert!(matches!(closed, ClientError::ProducerClosed), "{closed}");
        transactions.commit().await.unwrap_err();
        transactions.begin().await.unwrap();
        transactions.write(batch(0..2)).await.unwrap();
        transactions.commit().await.unwrap();
        // Nothing is in the next one yet.
        transactions.commit().await.unwrap();
    });
    check(&cluster, 2, 1);
}

/// Moments at which something is given up, in steps that are shorter than a round trip.
fn moments() -> impl Iterator<Item = Duration> {
    (0..200).map(|step| STEP * step)
}

#[test]
fn what_is_given_up_at_any_moment_is_settled_by_the_next_beginning() {
    for moment in moments() {
        let mut sim = Sim::new(4);
        let (cluster, machines) = Cluster::new(&mut sim, Moods::default());
        let at = cluster.clone();
        sim.run(|env| async move {
            at.start(&machines).await;
            let mut transactions = transactions(&env);
            transactions.begin().await.unwrap();
            let round = async {
                transactions.write(batch(0..2)).await?;
                transactions.commit().await
            };
            let _ = env.clock.timeout(moment, round).await;
            count_on(&at, &mut transactions, 4).await.unwrap();
        });
        let count = cluster.committed().len();
        assert!(count >= 4);
        check(&cluster, count, 4);
    }
}

/// One that was fenced while it had nothing open, amid a beginning that was given up, does not take its place back.
#[test]
fn a_beginning_that_was_given_up_is_fenced_too() {
    for moment in moments() {
        let mut sim = Sim::new(5);
        let (cluster, machines) = Cluster::new(&mut sim, Moods::default());
        let at = cluster.clone();
        sim.run(|env| async move {
            at.start(&machines).await;
            let (mut first, mut second) = (transactions(&env), transactions(&env));
            first.begin().await.unwrap();
            first.write(batch(0..1)).await.unwrap();
            let refused = packed(&[Record::of(REFUSED)]);
            first.write(refused).await.unwrap_err();
            let given_up = env.clock.timeout(moment, first.begin()).await.is_err();
            second.begin().await.unwrap();
            if given_up {
                assert!(first.begin().await.unwrap_err().is_fenced(), "{moment:?}");
            }
            count_on(&at, &mut second, 3).await.unwrap();
        });
    }
}

#[test]
fn of_two_the_first_is_fenced_and_stays_so() {
    for is_open in [false, true] {
        let mut sim = Sim::new(2);
        let (cluster, machines) = Cluster::new(&mut sim, Moods::default());
        let at = cluster.clone();
        sim.run(|env| async move {
            at.start(&machines).await;
            let (mut first, mut second) = (transactions(&env), transactions(&env));
            count_on(&at, &mut first, 5).await.unwrap();
            let begun = at.committed().len();
            if is_open {
                first.write(batch(begun..begun + 4)).await.unwrap();
            }
            // As much as the first one has committed, and what it has written besides is aborted.
            second.begin().await.unwrap();
            assert_eq!(at.committed().len(), begun);
            let late = match is_open {
                true => first.commit().await,
                false => first.write(batch(begun..begun + 1)).await,
            };
            assert!(late.unwrap_err().is_fenced());
            count_on(&at, &mut second, 20).await.unwrap();
            for _ in 0..2 {
                assert!(first.begin().await.unwrap_err().is_fenced());
            }
            count_on(&at, &mut second, 30).await.unwrap();
        });
        let count = cluster.committed().len();
        assert!(count >= 30);
        check(&cluster, count, 2);
    }
}

/// Brokers fence a producer that took too long as if another one had begun.
#[test]
fn one_that_was_late_begins_anew() {
    let mut sim = Sim::new(3);
    let (cluster, machines) = Cluster::new(&mut sim, Moods::default());
    let at = cluster.clone();
    sim.run(|env| async move {
        at.start(&machines).await;
        let mut transactions = transactions(&env);
        count_on(&at, &mut transactions, 5).await.unwrap();
        let begun = at.committed().len();
        transactions.write(batch(begun..begun + 4)).await.unwrap();
        // The transaction begins with its first batch, not with its last.
        env.clock.sleep(TIMEOUT / 2).await;
        transactions.write(batch(begun + 4..begun + 5)).await.unwrap();
        env.clock.sleep(TIMEOUT * 2 / 3).await;
        assert!(transactions.commit().await.unwrap_err().is_fenced());
        count_on(&at, &mut transactions, 20).await.unwrap();
    });
    let count = cluster.committed().len();
    assert!(count >= 20);
    check(&cluster, count, 3);
}
