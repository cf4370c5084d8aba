//! What a stream tells, on the thread that asks for it.
//!
//! The stream is let go of before anything is called: first what has happened is collected, then each callback runs
//! with nothing held, and so may submit in the same stream. What reads on in the stream ([`Delivery::check_outside`])
//! may not be called then: the record that a callback looks at lies where the next answer would go.
#![allow(unsafe_code, reason = "functions that C calls, with pointers of its, and that call back")]

use core::ffi::c_void;
use core::mem;
use core::time::Duration;
use std::collections::VecDeque;

use super::Status;
use super::barrier::{Failure, Out, OutArray, answer, reference};
use super::stream::{Inner, StreamHandle, with};
use super::types::{
    Completion, CompletionCallback, Entry, EntryCallback, EpochClosedCallback, Kind, Role, RoleCallback,
    Stamp, WatermarkCallback,
};
use crate::client::ring::{Event, StreamRole, Waited};
use crate::client::{Item, RequestId};
use crate::limits::INDEX_MAX;
use crate::types::Index;

/// What is to be told, and to whom.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    calls: Calls,
    /// A poll is under way: it may stand in a callback.
    polling: bool,
    /// What was collected by plimsoll_completions and is for callbacks.
    told: VecDeque<Told>,
    /// What nobody was called for.
    completions: VecDeque<Completion>,
    is_followed: bool,
    detached: bool,
    /// What was last told of the role is that it is not told.
    untold: bool,
}

/// Whom to call, with what.
#[derive(Clone, Copy, Debug, Default)]
struct Calls {
    completion: Call<CompletionCallback>,
    watermark: Call<WatermarkCallback>,
    epoch_closed: Call<EpochClosedCallback>,
    role: Call<RoleCallback>,
    entry: Call<EntryCallback>,
}

#[derive(Clone, Copy, Debug)]
struct Call<F> {
    callback: F,
    context: *mut c_void,
}

impl<F: Default> Default for Call<F> {
    fn default() -> Call<F> {
        Call { callback: F::default(), context: core::ptr::null_mut() }
    }
}

#[derive(Clone, Copy, Debug)]
enum Told {
    Completion(Completion),
    Watermark(Stamp),
    EpochClosed(Stamp),
    Role(Role),
}

impl Delivery {
    /// Refuses what no callback may call.
    pub(super) fn check_outside(&self) -> Result<(), Failure> {
        if self.polling { Err(Failure::new(Status::Reentered)) } else { Ok(()) }
    }

    /// The node is there again.
    pub(super) fn reattached(&mut self) {
        (self.detached, self.untold) = (false, false);
    }

    /// What was last told of the role; `told`: by the stream, which keeps roles only.
    pub(super) fn role(&self, told: Option<StreamRole>) -> Role {
        match told {
            _ if self.untold => Role::only(Kind::Untold),
            Some(role) => role.into(),
            None => Role::only(Kind::Detached),
        }
    }

    /// How many ends of requests wait to be taken or called for.
    pub(super) fn untaken(&self) -> usize {
        let told = self.told.iter().filter(|told| matches!(told, Told::Completion(_)));
        self.completions.len() + told.count()
    }

    /// Whether something was collected that nobody was told.
    fn has_something(&self) -> bool {
        !self.told.is_empty() || !self.completions.is_empty()
    }

    fn take_in(&mut self, event: Event) {
        match event {
            Event::Ended { request: RequestId(request), outcome } => {
                self.complete(Completion::of(request, &outcome));
            }
            Event::Confirmed { request: RequestId(request), index } => {
                self.complete(Completion::confirmed(request, index.0));
            }
            Event::Watermark(stamp) => self.tell_watermark(stamp.into()),
            Event::EpochClosed(last) => self.tell_epoch_closed(last.into()),
            Event::Role(role) => {
                self.untold = false;
                self.tell_role(role.into());
            }
            Event::Untold(_) => {
                self.untold = true;
                self.tell_role(Role::only(Kind::Untold));
            }
            Event::Detached => {
                (self.detached, self.untold) = (true, false);
                self.tell_role(Role::only(Kind::Detached));
            }
        }
    }

    /// From now on these are called for, and nobody else. What is untaken goes where it will be looked for: ends that
    /// plimsoll_completions has collected for a callback would be dropped without one, and those that nobody was called
    /// for would keep plimsoll_wait from waiting if nobody takes them any more.
    fn call_for_completions(&mut self, call: Call<CompletionCallback>) {
        self.calls.completion = call;
        if call.callback.is_some() {
            // Before all else, so that no watermark is told ahead of what it covers.
            while let Some(completion) = self.completions.pop_back() {
                self.told.push_front(Told::Completion(completion));
            }
            return;
        }
        let Delivery { told, completions, .. } = self;
        told.retain(|told| match *told {
            Told::Completion(completion) => {
                completions.push_back(completion);
                false
            }
            _ => true,
        });
    }

    fn complete(&mut self, completion: Completion) {
        if self.calls.completion.callback.is_some() {
            self.told.push_back(Told::Completion(completion));
        } else {
            self.completions.push_back(completion);
        }
    }

    fn tell_watermark(&mut self, stamp: Stamp) {
        match self.told.back_mut() {
            _ if self.calls.watermark.callback.is_none() => {}
            // Of several the last says it all.
            Some(Told::Watermark(last)) => *last = stamp,
            _ => self.told.push_back(Told::Watermark(stamp)),
        }
    }

    fn tell_epoch_closed(&mut self, last: Stamp) {
        if self.calls.epoch_closed.callback.is_some() {
            self.told.push_back(Told::EpochClosed(last));
        }
    }

    fn tell_role(&mut self, role: Role) {
        if self.calls.role.callback.is_some() {
            self.told.push_back(Told::Role(role));
        }
    }
}

impl Inner {
    /// Takes in what has happened.
    fn collect(&mut self) -> Result<(), Failure> {
        self.delivery.check_outside()?;
        self.check_unreserved()?;
        let Inner { stream, delivery, .. } = self;
        stream.poll(|event| delivery.take_in(event));
        Ok(())
    }

    fn follow(&mut self, from_index: u64) -> Result<(), Failure> {
        if mem::replace(&mut self.delivery.is_followed, true) {
            return Err(Failure::new(Status::Followed));
        }
        self.stream.follow(Index(from_index));
        Ok(())
    }

    /// The next record, if one has come. It stays where it is until the next is asked for.
    fn next_entry(&mut self) -> Result<Option<Entry>, Failure> {
        loop {
            match self.stream.next_item()? {
                Some(Item::Record(record)) => return Ok(Some(record.into())),
                Some(Item::Mark(_)) => {}
                None => return Ok(None),
            }
        }
    }
}

/// Calls for an event what is to be called.
fn call(calls: &Calls, told: &Told) {
    match told {
        Told::Completion(completion) => {
            let Call { callback: Some(callback), context } = calls.completion else { return };
            // SAFETY: the engine has given the two to be called so, and nothing of the stream is held.
            unsafe { callback(context, completion) }
        }
        Told::Watermark(stamp) => {
            let Call { callback: Some(callback), context } = calls.watermark else { return };
            // SAFETY: likewise.
            unsafe { callback(context, stamp) }
        }
        Told::EpochClosed(last) => {
            let Call { callback: Some(callback), context } = calls.epoch_closed else { return };
            // SAFETY: likewise.
            unsafe { callback(context, last) }
        }
        Told::Role(role) => {
            let Call { callback: Some(callback), context } = calls.role else { return };
            // SAFETY: likewise.
            unsafe { callback(context, role) }
        }
    }
}

/// Gives what has happened to the callbacks, then the committed records that have come, and sets `*count` to how much
/// all that was, 0 on errors. Without plimsoll_on_completion, ends of requests are counted when they come, and kept,
/// however many, until plimsoll_completions takes them. Never blocks. PLIMSOLL_ENDED: the node is gone, and everything
/// was told; plimsoll_stream_reattach. That a node of another process was killed plimsoll_wait finds, however short its
/// timeout: this makes no system call to ask. Not from a callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_poll(stream: *mut StreamHandle, count: *mut usize) -> Status {
    answer(|| {
        // SAFETY: the caller hands in room for the answer.
        let mut out = unsafe { Out::new(count)? };
        out.set(0);
        let begin = |inner: &mut Inner| {
            let before = inner.delivery.completions.len();
            inner.collect()?;
            inner.delivery.polling = true;
            let told = mem::take(&mut inner.delivery.told);
            Ok((told, inner.delivery.completions.len() - before, inner.delivery.calls))
        };
        // SAFETY: the caller hands in a handle.
        let guarded = &unsafe { reference(stream)? }.guarded;
        // Goes last, so that the stream cannot be closed before this has let go of it, be it by a panic.
        let (_bound, (mut told, uncalled, calls)) = guarded.bind(begin)?;
        told.iter().for_each(|told| call(&calls, told));
        let mut count = uncalled + told.len();
        out.set(count);
        // SAFETY: likewise.
        let entries = unsafe { give_entries(stream, &calls) };
        let end = |inner: &mut Inner| {
            // A callback may have set another, and so have left something to tell.
            if inner.delivery.told.is_empty() {
                told.clear();
                inner.delivery.told = told;
            }
            inner.delivery.polling = false;
            Ok(inner.delivery.detached)
        };
        let detached = guarded.with(end)?;
        count += entries?;
        out.set(count);
        if detached && count == 0 { Err(Failure::new(Status::Ended)) } else { Ok(()) }
    })
}

/// Gives out the records that have come, and says how many.
///
/// # Safety
/// `stream` is a handle that was not closed.
unsafe fn give_entries(stream: *mut StreamHandle, calls: &Calls) -> Result<usize, Failure> {
    let Call { callback: Some(callback), context } = calls.entry else { return Ok(0) };
    let mut count = 0;
    // SAFETY: what the caller must see to.
    while let Some(entry) = unsafe { with(stream, Inner::next_entry)? } {
        // SAFETY: the engine has given the two to be called so. The record's bytes stay until the next is asked for,
        // which only the poll that is under way does.
        unsafe { callback(context, &entry) };
        count += 1;
    }
    Ok(count)
}

/// Looks for the ends of requests without calling anybody: writes those that have come, oldest first, as many as fit,
/// and sets `*count` to how many that were, 0 on errors. For streams without plimsoll_on_completion; what roles and
/// watermarks have come is told by the next plimsoll_poll, or by plimsoll_stream_role and plimsoll_stream_watermark.
/// PLIMSOLL_ENDED: as of plimsoll_poll. Never blocks. Not from a callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_completions(
    stream: *mut StreamHandle,
    completions: *mut Completion,
    capacity: usize,
    count: *mut usize,
) -> Status {
    answer(|| {
        // SAFETY: the caller hands in room for the answers.
        let (mut array, mut out) = unsafe { (OutArray::new(completions, capacity)?, Out::new(count)?) };
        out.set(0);
        let take = |inner: &mut Inner| {
            inner.collect()?;
            let waiting = inner.delivery.completions.len();
            let taken = array.fill(inner.delivery.completions.drain(..waiting.min(capacity)));
            out.set(taken);
            if inner.delivery.detached && waiting == 0 { Err(Failure::new(Status::Ended)) } else { Ok(()) }
        };
        // SAFETY: the caller hands in a handle.
        unsafe { with(stream, take) }
    })
}

/// Waits until there is something to poll, for at most `timeout_us`: spins for a while (see plimsoll_stream_options),
/// then sleeps on a word of the ring. PLIMSOLL_OK: there is something, be it that the node is gone. PLIMSOLL_WOKEN:
/// plimsoll_wake was called, now or since the last wait that was answered so; there may be something as well.
/// PLIMSOLL_TIMED_OUT: neither. What is kept for plimsoll_completions or plimsoll_next_entry is something, and
/// plimsoll_poll does not take it: a wait returns at once as long as it is not taken there. From the thread that uses
/// the stream; not from a callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_wait(stream: *mut StreamHandle, timeout_us: u64) -> Status {
    answer(|| {
        let wait = |inner: &mut Inner| {
            inner.delivery.check_outside()?;
            inner.check_unreserved()?;
            let has_something = inner.delivery.has_something();
            let timeout_us = if has_something { 0 } else { timeout_us };
            match inner.stream.wait(Duration::from_micros(timeout_us)) {
                Waited::TimedOut if has_something => Ok(()),
                waited => waited_for(waited),
            }
        };
        // SAFETY: the caller hands in a handle.
        unsafe { with(stream, wait) }
    })
}

/// How a wait is answered.
pub(super) fn waited_for(waited: Waited) -> Result<(), Failure> {
    match waited {
        Waited::Ready => Ok(()),
        Waited::Woken => Err(Failure::new(Status::Woken)),
        Waited::TimedOut => Err(Failure::new(Status::TimedOut)),
    }
}

/// Sets who is told of requests that end; null: nobody, and plimsoll_completions gives them out. This holds for ends
/// that were collected before, too, and not told nor taken. `context` is handed on as it is. One that is set in a
/// callback is called from the next poll on. Callbacks may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_on_completion(
    stream: *mut StreamHandle,
    callback: CompletionCallback,
    context: *mut c_void,
) -> Status {
    answer(|| {
        let set = |inner: &mut Inner| {
            inner.delivery.call_for_completions(Call { callback, context });
            Ok(())
        };
        // SAFETY: the caller hands in a handle.
        unsafe { with(stream, set) }
    })
}

/// Sets who is told of watermarks; null: nobody. See plimsoll_on_completion.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_on_watermark(
    stream: *mut StreamHandle,
    callback: WatermarkCallback,
    context: *mut c_void,
) -> Status {
    answer(|| {
        let set = |inner: &mut Inner| {
            inner.delivery.calls.watermark = Call { callback, context };
            Ok(())
        };
        // SAFETY: the caller hands in a handle.
        unsafe { with(stream, set) }
    })
}

/// Sets who is told of roles; null: nobody. See plimsoll_on_completion.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_on_role(
    stream: *mut StreamHandle,
    callback: RoleCallback,
    context: *mut c_void,
) -> Status {
    answer(|| {
        let set = |inner: &mut Inner| {
            inner.delivery.calls.role = Call { callback, context };
            Ok(())
        };
        // SAFETY: the caller hands in a handle.
        unsafe { with(stream, set) }
    })
}

/// Sets who is told of epochs whose fate is settled; null: nobody. Set it before the first poll: what has been polled
/// is told nobody again. See plimsoll_on_completion.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_on_epoch_closed(
    stream: *mut StreamHandle,
    callback: EpochClosedCallback,
    context: *mut c_void,
) -> Status {
    answer(|| {
        let set = |inner: &mut Inner| {
            inner.delivery.calls.epoch_closed = Call { callback, context };
            Ok(())
        };
        // SAFETY: the caller hands in a handle.
        unsafe { with(stream, set) }
    })
}

/// Follows the stream: its committed records from this index on (1: from the first), whoever has submitted them. Once
/// per stream; PLIMSOLL_FOLLOWED if it was. A record is given once, also over plimsoll_stream_reattach. Callbacks may
/// call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_on_apply(
    stream: *mut StreamHandle,
    from_index: u64,
    callback: EntryCallback,
    context: *mut c_void,
) -> Status {
    answer(|| {
        if callback.is_none() {
            return Err(Failure::new(Status::NullArgument));
        }
        check_index(from_index)?;
        let follow = |inner: &mut Inner| {
            inner.follow(from_index)?;
            inner.delivery.calls.entry = Call { callback, context };
            Ok(())
        };
        // SAFETY: the caller hands in a handle.
        unsafe { with(stream, follow) }
    })
}

/// Follows the stream as plimsoll_on_apply does, but calls nobody: plimsoll_next_entry takes the records. Callbacks may
/// call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_follow(stream: *mut StreamHandle, from_index: u64) -> Status {
    answer(|| {
        check_index(from_index)?;
        // SAFETY: the caller hands in a handle.
        unsafe { with(stream, |inner| inner.follow(from_index)) }
    })
}

/// Takes the next committed record of a stream that plimsoll_follow follows, if one has come: `*found` says whether.
/// Nothing more is asked of the node until all that has come was taken, so that who takes slowly holds nothing but its
/// own reading back. The entry is valid until the next call of this, plimsoll_poll or plimsoll_completions.
/// plimsoll_poll is to be called now and then: it brings the records. Never blocks. Not from a callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_next_entry(
    stream: *mut StreamHandle,
    entry: *mut Entry,
    found: *mut bool,
) -> Status {
    answer(|| {
        // SAFETY: the caller hands in room for the answers.
        let (mut entry, mut found) = unsafe { (Out::new(entry)?, Out::new(found)?) };
        found.set(false);
        let next = |inner: &mut Inner| {
            inner.delivery.check_outside()?;
            if let Some(next) = inner.next_entry()? {
                entry.set(next);
                found.set(true);
            }
            Ok(())
        };
        // SAFETY: the caller hands in a handle.
        unsafe { with(stream, next) }
    })
}

fn check_index(from_index: u64) -> Result<(), Failure> {
    if (1..=INDEX_MAX).contains(&from_index) {
        return Ok(());
    }
    Err(Failure::because(Status::BadArgument, "the first index is 1"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::wire::client::Outcome;

    unsafe extern "C-unwind" fn on_completion(_: *mut c_void, _: *const Completion) {}

    unsafe extern "C-unwind" fn on_watermark(_: *mut c_void, _: *const Stamp) {}

    fn calling() -> Call<CompletionCallback> {
        Call { callback: Some(on_completion), ..Call::default() }
    }

    fn ended(request: u64) -> Event {
        Event::Ended { request: RequestId(request), outcome: Outcome::Busy }
    }

    /// What is told, a watermark as 0.
    fn told(delivery: &Delivery) -> Vec<u64> {
        let number = |told: &Told| match told {
            Told::Completion(completion) => completion.request,
            _ => 0,
        };
        delivery.told.iter().map(number).collect()
    }

    /// Who asked for the role was told that the node is gone, and so that it should attach again, for ever.
    #[test]
    fn that_no_role_is_told_is_told_until_there_is_one() {
        let mut delivery = Delivery::default();
        assert_eq!(delivery.role(None).role, Kind::Detached);
        delivery.take_in(Event::Untold(Outcome::Invalid));
        assert_eq!(delivery.role(None).role, Kind::Untold);
        let role = StreamRole {
            role: crate::raft::Role::Leader,
            term: crate::types::Term(1),
            leader: None,
            epoch: crate::types::Epoch(0),
            open: true,
            takes_records: true,
            closing: false,
        };
        delivery.take_in(Event::Role(role));
        assert_eq!(delivery.role(Some(role)).role, Kind::Leader);
        delivery.take_in(Event::Untold(Outcome::Busy));
        delivery.take_in(Event::Detached);
        assert_eq!(delivery.role(None).role, Kind::Detached);
    }

    /// What plimsoll_completions had collected for a callback was dropped if that was taken back before the next poll.
    #[test]
    fn ends_are_told_by_whoever_is_asked_last() {
        let mut delivery = Delivery::default();
        delivery.call_for_completions(calling());
        delivery.calls.watermark.callback = Some(on_watermark);
        delivery.take_in(ended(1));
        delivery.take_in(Event::Watermark(crate::types::Stamp::ZERO));
        delivery.take_in(ended(2));
        assert_eq!(told(&delivery), [1, 0, 2]);
        delivery.call_for_completions(calling());
        assert_eq!(told(&delivery), [1, 0, 2], "another callback changes nothing in what is told");

        delivery.call_for_completions(Call::default());
        delivery.take_in(ended(3));
        let requests: Vec<_> = delivery.completions.iter().map(|completion| completion.request).collect();
        assert_eq!((requests, told(&delivery)), (vec![1, 2, 3], vec![0]));
        assert_eq!(delivery.untaken(), 3);

        delivery.call_for_completions(calling());
        assert_eq!((delivery.completions.len(), told(&delivery)), (0, vec![1, 2, 3, 0]));
        assert_eq!(delivery.untaken(), 3);
    }
}
