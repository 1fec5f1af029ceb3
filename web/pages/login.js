// Shown when the API wants to know who we are. The password goes to this server only; what
// comes back is a cookie that no script can read.
import { Button, Field, html, useEffect, useRef, useState } from '../ui.js';
import { locked, login, session } from '../api.js';
import { useStore } from '../store.js';

export function Login() {
  const who = useStore(session);
  const [error, setError] = useState();
  const [busy, setBusy] = useState(false);
  const first = useRef();
  useEffect(() => {
    document.title = 'Log in · Sabir';
    first.current?.focus();
  }, []);
  const submit = async (event) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    setBusy(true);
    setError(undefined);
    try {
      await login(form.get('user'), form.get('password'));
    } catch (problem) {
      setError(problem);
    }
    setBusy(false);
  };
  return html`<main class="login"><form class="card" onSubmit=${submit}>
    <h1><img src="/console/icon.svg" alt="" width="28" height="28" />Sabir</h1>
    <p class="sub">Log in with a user of this broker.</p>
    <${Field} label="User"><input name="user" ref=${first} required autocomplete="username" autocapitalize="off" spellcheck="false" /><//>
    <${Field} label="Password"><input name="password" type="password" required autocomplete="current-password" /><//>
    <div role="alert" class="login-error">${error && (error.code === 'authentication-failed' ? 'User or password is wrong.'
    : error.code === 'too-many-attempts' ? 'Too many attempts; wait a little.' : `${error.message}.`)}</div>
    <div class="actions"><${Button} kind="primary" type="submit" busy=${busy}>Log in<//>
    ${who?.anonymous && html`<${Button} kind="quiet" onClick=${() => locked.set(false)}>Go on without<//>`}</div>
  </form></main>`;
}
