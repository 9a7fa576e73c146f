"use strict";
// The browser hides a nonce from everybody but the property of the element that carries it.
const {nonce, dataset} = document.currentScript;
Redoc.init(
  dataset.schema,
  {nonce, disableSearch: true, hideDownloadButton: true, nativeScrollbars: true},
  document.getElementById("redoc"),
);
