//! The Ethernet addresses of the hosts that are sent to: a bounded table, asked for, refreshed and forgotten.
//!
//! Only who is sent to gets a row: a stranger's question is answered and leaves nothing behind. A row is changed by any
//! word of its host, asked for or not: a peer that comes back with another address says so at once. (Whoever is on the
//! same Ethernet can forge that, as with every ARP.)

use core::net::Ipv4Addr;
use core::time::Duration;

use crate::limits::NEIGHBOURS_MAX;
use crate::types::Time;
use crate::wire::ethernet::Mac;

/// How long an answer is believed before its host is asked again, beside the traffic.
const FRESH: Duration = Duration::from_secs(20);

/// How often a host is asked that is sent to and not known, or to be confirmed.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// How often a known host is asked again without an answer before it is forgotten.
const CONFIRMATIONS: u32 = 10;

/// The hosts of one port, as one lane knows them.
#[derive(Debug)]
pub(super) struct Neighbours {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    ip: Ipv4Addr,
    mac: Option<Mac>,
    /// When it was last heard of, or when it was first asked for.
    heard: Time,
    /// When it may be asked for again.
    ask_at: Time,
    asked: u32,
    /// When it was last sent to.
    used: Time,
}

/// What is known of a host that is to be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// Its address.
    Known(Mac),
    /// Nothing: ask for it.
    Ask,
    /// Nothing: it was asked for a moment ago.
    Asked,
}

/// What an ARP packet has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learned {
    /// An address that was not known, or another one.
    New,
    /// What was known.
    Same,
    /// Nothing: its sender is not sent to.
    Stranger,
}

/// What became due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Ask for this host again.
    Ask(Ipv4Addr),
    /// It does not answer any more and is forgotten.
    Lost(Ipv4Addr),
}

impl Neighbours {
    pub(super) fn new() -> Neighbours {
        Neighbours { rows: Vec::with_capacity(NEIGHBOURS_MAX) }
    }

    /// The address of a host that is sent to now.
    pub(super) fn lookup(&mut self, ip: Ipv4Addr, now: Time) -> Lookup {
        let at = self.rows.iter().position(|row| row.ip == ip).unwrap_or_else(|| self.insert(ip, now));
        let row = &mut self.rows[at];
        row.used = now;
        match row.mac {
            Some(mac) => Lookup::Known(mac),
            None if row.ask_at > now => Lookup::Asked,
            None => {
                row.ask_at = now.after(ASK_EVERY);
                row.asked = row.asked.saturating_add(1);
                Lookup::Ask
            }
        }
    }

    fn insert(&mut self, ip: Ipv4Addr, now: Time) -> usize {
        if self.rows.len() == NEIGHBOURS_MAX {
            let oldest = self.rows.iter().enumerate().min_by_key(|(_, row)| row.used).map(|(at, _)| at);
            self.rows.swap_remove(oldest.expect("a full table has rows"));
        }
        self.rows.push(Row { ip, mac: None, heard: now, ask_at: now, asked: 0, used: now });
        self.rows.len() - 1
    }

    /// Takes in what an ARP packet says of its sender.
    pub(super) fn learn(&mut self, ip: Ipv4Addr, mac: Mac, now: Time) -> Learned {
        let Some(row) = self.rows.iter_mut().find(|row| row.ip == ip) else { return Learned::Stranger };
        (row.heard, row.ask_at, row.asked) = (now, now.after(FRESH), 0);
        if row.mac.replace(mac) == Some(mac) { Learned::Same } else { Learned::New }
    }

    /// What is due, one at a time, until there is nothing.
    pub(super) fn due(&mut self, now: Time) -> Option<Due> {
        let at = self.rows.iter().position(|row| row.mac.is_some() && row.ask_at <= now)?;
        let row = &mut self.rows[at];
        if row.asked == CONFIRMATIONS {
            let ip = row.ip;
            self.rows.swap_remove(at);
            return Some(Due::Lost(ip));
        }
        row.asked += 1;
        row.ask_at = now.after(ASK_EVERY);
        Some(Due::Ask(row.ip))
    }

    /// When something will be due.
    pub(super) fn next_due(&self) -> Time {
        let known = self.rows.iter().filter(|row| row.mac.is_some());
        known.map(|row| row.ask_at).min().unwrap_or(Time::NEVER)
    }

    /// Forgets all: the port went down, and who is there when it comes back is to be asked.
    pub(super) fn clear(&mut self) {
        self.rows.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 9, 0, last)
    }

    fn at(millis: u64) -> Time {
        Time(0).after(Duration::from_millis(millis))
    }

    #[test]
    fn a_host_is_asked_for_at_intervals_until_it_answers() {
        let mut table = Neighbours::new();
        assert_eq!(table.lookup(ip(1), at(0)), Lookup::Ask);
        assert_eq!(table.lookup(ip(1), at(99)), Lookup::Asked);
        assert_eq!(table.lookup(ip(1), at(100)), Lookup::Ask);
        assert_eq!((table.due(at(500)), table.next_due()), (None, Time::NEVER));
        assert_eq!(table.learn(ip(1), MAC, at(150)), Learned::New);
        assert_eq!(table.learn(ip(1), MAC, at(151)), Learned::Same);
        assert_eq!(table.lookup(ip(1), at(152)), Lookup::Known(MAC));
        assert_eq!(table.learn(ip(1), Mac([4; 6]), at(153)), Learned::New);
        assert_eq!(table.lookup(ip(1), at(154)), Lookup::Known(Mac([4; 6])));
    }

    #[test]
    fn who_does_not_answer_any_more_is_forgotten() {
        let mut table = Neighbours::new();
        table.lookup(ip(1), at(0));
        table.learn(ip(1), MAC, at(0));
        assert_eq!(table.next_due(), at(20_000));
        assert_eq!(table.due(at(19_999)), None);
        let mut now = 20_000;
        for _ in 0..CONFIRMATIONS {
            assert_eq!(table.due(at(now)), Some(Due::Ask(ip(1))));
            assert_eq!(table.due(at(now)), None);
            assert_eq!(table.lookup(ip(1), at(now)), Lookup::Known(MAC), "it is believed until then");
            now += 100;
        }
        assert_eq!(table.due(at(now)), Some(Due::Lost(ip(1))));
        assert_eq!(table.due(at(now)), None);
        assert_eq!(table.lookup(ip(1), at(now)), Lookup::Ask);
    }

    #[test]
    fn one_that_answers_again_is_fresh_again() {
        let mut table = Neighbours::new();
        table.lookup(ip(1), at(0));
        table.learn(ip(1), MAC, at(0));
        assert_eq!(table.due(at(20_000)), Some(Due::Ask(ip(1))));
        assert_eq!(table.learn(ip(1), MAC, at(20_010)), Learned::Same);
        assert_eq!(table.next_due(), at(40_010));
    }

    #[test]
    fn strangers_take_no_row_and_a_full_table_gives_up_who_was_sent_to_longest_ago() {
        let mut table = Neighbours::new();
        assert_eq!(table.learn(ip(9), MAC, at(0)), Learned::Stranger);
        let many = NEIGHBOURS_MAX as u8;
        for last in 0..many {
            table.lookup(ip(last), at(last.into()));
        }
        table.lookup(ip(0), at(1000));
        table.lookup(ip(many), at(1001));
        assert_eq!(table.rows.len(), NEIGHBOURS_MAX);
        assert_eq!(table.learn(ip(1), MAC, at(1002)), Learned::Stranger);
        assert_eq!(table.learn(ip(0), MAC, at(1002)), Learned::New);
    }
}
