// A link on another site opens this page without the session's cookie (SameSite=Strict), even for a visitor who is
// signed in. A request made by this page carries the cookie: then /login redirects, and reloading shows the queue.
const answer = await fetch(document.querySelector("form.login").action);
if (answer.redirected) location.replace(location.href);
