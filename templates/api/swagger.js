"use strict";
const csrf = "{{ csrf_token|escapejs }}";
SwaggerUIBundle({
  url: "{% url "api:schema" %}",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
  requestInterceptor: (request) => {
    if (request.method && request.method !== "GET") request.headers["X-CSRFToken"] = csrf;
    return request;
  },
});
