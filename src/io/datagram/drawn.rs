//! [`Drawn`]: numbers that nobody can tell who does not know the seed.

/// A stream of numbers under a key: SipHash-2-4 (Aumasson, Bernstein, 2012) of a counter. Whoever has seen some of
/// them, as every peer and everybody on the way does, knows nothing of the key and of the others: with a generator
/// whose steps can be undone one welcome would tell all ids that are drawn after it, and whoever names the id of a
/// session can end it.
#[derive(Debug)]
pub(super) struct Drawn {
    key: [u64; 2],
    count: u64,
}

impl Drawn {
    pub(super) fn new(seed: u128) -> Drawn {
        Drawn { key: [seed as u64, (seed >> 64) as u64], count: 0 }
    }

    /// The next one.
    pub(super) fn next(&mut self) -> u64 {
        self.count += 1;
        siphash(self.key, self.count)
    }
}

/// SipHash-2-4 of a message of eight bytes, read as a little-endian number.
fn siphash([k0, k1]: [u64; 2], message: u64) -> u64 {
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    // The last word holds what is left of the message, which is nothing, and its length.
    for word in [message, 8 << 56] {
        v[3] ^= word;
        round(&mut v);
        round(&mut v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    (0..4).for_each(|_| round(&mut v));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn round([v0, v1, v2, v3]: &mut [u64; 4]) {
    *v0 = v0.wrapping_add(*v1);
    *v1 = v1.rotate_left(13) ^ *v0;
    *v0 = v0.rotate_left(32);
    *v2 = v2.wrapping_add(*v3);
    *v3 = v3.rotate_left(16) ^ *v2;
    *v0 = v0.wrapping_add(*v3);
    *v3 = v3.rotate_left(21) ^ *v0;
    *v2 = v2.wrapping_add(*v1);
    *v1 = v1.rotate_left(17) ^ *v2;
    *v2 = v2.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_siphash() {
        // The key and the message of the reference vectors: the bytes from 0 on.
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        assert_eq!(siphash(key, 0x0706_0504_0302_0100), 0x93f5_f579_9a93_2462);
        // And what the standard library says of some others.
        #[allow(deprecated)]
        for (key, message) in [([0, 0], 0), ([1, u64::MAX], 77), ([u64::MAX, 3], u64::MAX)] {
            let mut hasher = std::hash::SipHasher::new_with_keys(key[0], key[1]);
            std::hash::Hasher::write(&mut hasher, &u64::to_le_bytes(message));
            assert_eq!(siphash(key, message), std::hash::Hasher::finish(&hasher));
        }
    }

    #[test]
    fn a_seed_gives_the_same_numbers_and_another_one_others() {
        let some = |seed| {
            let mut drawn = Drawn::new(seed);
            [(); 4].map(|()| drawn.next())
        };
        assert_eq!(some(5), some(5));
        let halves = [some(5), some(6), some(5 << 64)];
        for (at, numbers) in halves.iter().enumerate() {
            assert!(halves[..at].iter().all(|other| numbers.iter().all(|number| !other.contains(number))));
        }
    }
}
