//! Messages that no honest peer sends.
