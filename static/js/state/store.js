/** Hold a state. Subscribers are called once after any number of changes in one task. */
export function createStore(state) {
  const subscribers = [];
  let scheduled = false;
  return {
    get state() {
      return state;
    },
    /**
     * Replace the state by what a transition returns for it.
     * @param {(state: any, ...args: any[]) => any} transition
     */
    change(transition, ...args) {
      state = transition(state, ...args);
      if (scheduled) return;
      scheduled = true;
      queueMicrotask(() => {
        scheduled = false;
        for (const update of subscribers) update(state);
      });
    },
    subscribe(update) {
      subscribers.push(update);
    },
  };
}
