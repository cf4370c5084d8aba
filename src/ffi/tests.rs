#![allow(clippy::unwrap_used)]

use super::barrier::{Failure, Guarded, answer};
use super::texts::text_of;
use super::{Kind, Status};

const HEADER: &str = include_str!("../../include/plimsoll.h");

/// The numbers that the header gives to names that begin so.
fn numbers(prefix: &str) -> Vec<(String, i32)> {
    HEADER
        .lines()
        .filter_map(|line| line.trim().strip_suffix(',')?.split_once(" = "))
        .filter(|(name, _)| name.starts_with(prefix))
        .map(|(name, number)| (name.to_owned(), number.parse().unwrap()))
        .collect()
}

/// The texts are a table beside the enumeration: one that is forgotten there is found here.
#[test]
fn every_status_has_words() {
    let of_others = [numbers("PLIMSOLL_ACKS_"), numbers("PLIMSOLL_ROLE_")].concat();
    let statuses: Vec<_> = numbers("PLIMSOLL_").into_iter().filter(|it| !of_others.contains(it)).collect();
    assert!(statuses.len() > 45 && of_others.len() == 9, "{statuses:?} {of_others:?}");
    for (name, number) in statuses {
        assert!(text_of(number).is_some(), "{name}");
    }
    assert_eq!(text_of(Status::Panicked as i32 - 1), None);
    assert_eq!(numbers("PLIMSOLL_ROLE_UNTOLD")[0].1, Kind::Untold as i32);
}

#[test]
fn a_panic_is_answered_and_poisons() {
    let guarded = Guarded::new(7);
    let status = answer(|| guarded.with(|_| -> Result<(), Failure> { panic!("a defect") }));
    assert_eq!(status, Status::Panicked);
    assert_eq!(answer(|| guarded.with(|_| Ok(()))), Status::Panicked);
    assert!(guarded.take_for_good().is_ok(), "what is poisoned can be ended");
}

/// A callback's own call panicked, and the callback closed the stream as it was told to: the poll that had called it
/// went on in freed memory.
#[test]
fn what_is_polled_is_not_ended_not_even_after_a_panic() {
    let guarded = Guarded::new(7);
    let (bound, ()) = guarded.bind(|_| Ok(())).unwrap();
    assert_eq!(guarded.take_for_good().unwrap_err().status, Status::Reentered);
    assert!(guarded.with(|_| Ok(())).is_ok(), "who was refused has left it as it was");
    let status = answer(|| guarded.with(|_| -> Result<(), Failure> { panic!("a defect") }));
    assert_eq!(status, Status::Panicked);
    assert_eq!(guarded.take_for_good().unwrap_err().status, Status::Reentered);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| guarded.take_for_good().unwrap_err().status);
        assert_eq!(other.join().unwrap(), Status::Reentered);
    });
    drop(bound);
    assert!(guarded.take_for_good().is_ok(), "the poll is over");
}

/// A callback gave work to another thread, which used the stream while its poll was under way: the poll could not end,
/// and every later call, plimsoll_stream_close among them, was told that the stream is in use.
#[test]
fn a_poll_that_others_come_into_is_theirs_to_leave_alone() {
    let guarded = Guarded::new(0_u64);
    let (bound, ()) = guarded.bind(|_| Ok(())).unwrap();
    std::thread::scope(|scope| {
        let stranger = || {
            for _ in 0..10_000 {
                assert_eq!(answer(|| guarded.with(|_| Ok(()))), Status::Reentered);
            }
        };
        let others = [scope.spawn(stranger), scope.spawn(stranger)];
        while others.iter().any(|other| !other.is_finished()) {
            let seen = guarded.with(|value| Ok(core::mem::replace(value, *value + 1)));
            seen.expect("its own thread is let in, whoever else knocks");
        }
    });
    drop(bound);
    let seen =
        std::thread::scope(|scope| scope.spawn(|| guarded.with(|value| Ok(*value)).unwrap()).join().unwrap());
    assert!(seen > 0, "any thread may come again");
}

#[test]
fn who_comes_in_between_is_refused_and_does_no_harm() {
    let guarded = Guarded::new(7);
    let status = answer(|| {
        guarded.with(|value| {
            assert_eq!(answer(|| guarded.with(|_| Ok(()))), Status::Reentered);
            assert!(guarded.take_for_good().is_err());
            *value += 1;
            Ok(())
        })
    });
    assert_eq!(status, Status::Ok);
    assert_eq!(guarded.with(|value| Ok(*value)).unwrap(), 8);
}
