// Before the first paint, so that nothing flashes.
'use strict'
try {
  const chosen = localStorage.getItem('refold-theme')
  if (chosen === 'light' || chosen === 'dark') document.documentElement.dataset.theme = chosen
} catch { /* storage is not allowed here: the system's theme counts */ }
