// A link on another site leads here without the session's cookie (it is SameSite=Strict), also who has signed in.
// What this page asks for itself has the cookie: then /login leads on to the queue.
const answer = await fetch(document.querySelector("form.login").action);
if (answer.redirected) location.replace(location.href);
