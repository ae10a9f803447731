// A link on another site opens this page without the session cookie (SameSite=Strict), even for a visitor who is signed
// in. A request from this page sends the cookie: then /login redirects, and reloading shows the queue.
const answer = await fetch(document.querySelector("form.login").action);
if (answer.redirected) location.replace(location.href);
