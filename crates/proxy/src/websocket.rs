//! Where one WebSocket frame ends and the next begins, and the frame that says goodbye between two of them (RFC 6455).

/// Going away: the endpoint is going down, come back.
const GOING_AWAY: u16 = 1001;

/// Who speaks: what a client sends is masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// Follows one direction of a connection, frame by frame.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// The header of the frame that is coming in: at most 2 bytes, 8 of length, 4 of mask.
    header: [u8; 14],
    known: usize,
    /// Bytes of payload still to come; known when the header is whole.
    left: u64,
}

impl Frames {
    /// Whether a frame of ours may go out now.
    pub(crate) fn between(&self) -> bool {
        self.known == 0 && self.left == 0
    }

    /// Follows `bytes` to the end of the current frame, or to their own end; says how many that were.
    pub(crate) fn follow(&mut self, bytes: &[u8]) -> usize {
        let mut used = 0;
        while used < bytes.len() {
            if self.left > 0 {
                let piece = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - used);
                self.left -= piece as u64;
                used += piece;
            } else {
                self.header[self.known] = bytes[used];
                self.known += 1;
                used += 1;
                let Some(payload) = self.payload() else { continue };
                (self.known, self.left) = (0, payload);
            }
            if self.between() {
                break;
            }
        }
        used
    }

    /// The length of the payload, once the whole header is known.
    fn payload(&self) -> Option<u64> {
        if self.known < 2 {
            return None;
        }
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        let short = self.header[1] & 0x7f;
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        (self.known == 2 + extended + mask).then(|| match extended {
            0 => u64::from(short),
            _ => self.header[2..2 + extended].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        })
    }
}

/// The frame that says goodbye. A mask of zeros is a mask: it hides nothing, and there is nothing to hide.
pub(crate) fn goodbye(from: Side) -> Vec<u8> {
    let code = GOING_AWAY.to_be_bytes();
    match from {
        Side::Server => [&[0x88, 2][..], &code].concat(),
        Side::Client => [&[0x88, 0x82, 0, 0, 0, 0][..], &code].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(length: usize, masked: bool) -> Vec<u8> {
        let mut frame = vec![0x82];
        let mask = if masked { 0x80 } else { 0 };
        match length {
            0..=125 => frame.push(mask | u8::try_from(length).unwrap()),
            126..=0xffff => {
                frame.push(mask + 126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(mask + 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(vec![0xff; length + if masked { 4 } else { 0 }]);
        frame
    }

    #[test]
    fn both_goodbyes_are_one_frame() {
        for side in [Side::Client, Side::Server] {
            let mut frames = Frames::default();
            let goodbye = goodbye(side);
            assert_eq!(frames.follow(&goodbye), goodbye.len());
            assert!(frames.between());
        }
    }

    proptest! {
        #[test]
        fn frames_end_where_they_end_however_they_are_cut(
            sizes in proptest::collection::vec((prop_oneof![0usize..130, 65_530usize..65_540], any::<bool>()), 1..6),
            piece in 1usize..5000,
        ) {
            let mut ends = Vec::new();
            let mut bytes = Vec::new();
            for (length, masked) in sizes {
                bytes.extend(frame(length, masked));
                ends.push(bytes.len());
            }
            let mut frames = Frames::default();
            let (mut at, mut found) = (0, Vec::new());
            for piece in bytes.chunks(piece) {
                let mut rest = piece;
                while !rest.is_empty() {
                    let used = frames.follow(rest);
                    prop_assert!(used > 0);
                    (at, rest) = (at + used, &rest[used..]);
                    if frames.between() {
                        found.push(at);
                    }
                }
            }
            prop_assert_eq!(found, ends);
        }
    }
}
