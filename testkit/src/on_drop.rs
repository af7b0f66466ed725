//! A function that is called when a scope is left.

/// Calls a function when it is dropped, unless it was disarmed. A future that holds one notices that it is dropped
/// before its end, or that it panics.
pub(crate) struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> OnDrop<F> {
    pub(crate) const fn new(act: F) -> Self {
        Self(Some(act))
    }

    pub(crate) fn disarm(mut self) {
        self.0 = None;
    }
}

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(act) = self.0.take() {
            act();
        }
    }
}
