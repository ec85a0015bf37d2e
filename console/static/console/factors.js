"use strict";

/* Uses or creates a passkey, and sends it with the form of its button; prints recovery codes. */

const ceremonies = {
  create: (options) => ({
    publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options),
  }),
  get: (options) => ({
    publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options),
  }),
};

async function credentialOf({ form, dataset }) {
  const csrfmiddlewaretoken = form.elements.csrfmiddlewaretoken.value;
  const body = new URLSearchParams({ csrfmiddlewaretoken });
  const response = await fetch(dataset.options, { method: "POST", body });
  if (!response.ok) throw new Error(response.statusText);
  const options = ceremonies[dataset.passkey](await response.json());
  return navigator.credentials[dataset.passkey](options);
}

function show(text) {
  const message = document.getElementById("passkey-error");
  message.textContent = text;
  message.hidden = !text;
}

async function usePasskey({ currentTarget: button }) {
  const { credential, code, name } = button.form.elements;
  if (name && !name.reportValidity()) return;
  show("");
  button.disabled = true;
  try {
    credential.value = JSON.stringify(await credentialOf(button));
    if (code) code.value = "";
    button.form.submit();
  } catch {
    show(button.dataset.failed);
    button.disabled = false;
  }
}

document.querySelector("[data-passkey]")?.addEventListener("click", usePasskey);
document.getElementById("print")?.addEventListener("click", () => print());
