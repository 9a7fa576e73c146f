// A device made with Alibaba Cloud's Node SDK. Arguments and exit codes as those of linkkit_device.py.
// The SDK has no update functions: the application subscribes, downloads and reports by itself.
const crypto = require("crypto");
const fs = require("fs");
const http = require("http");
const iot = require("alibabacloud-iot-device-sdk");

const [port, productKey, deviceName, deviceSecret, version, path] = process.argv.slice(2);
setTimeout(() => process.exit(3), 60000);

const connect = () =>
  iot.device({ productKey, deviceName, deviceSecret, brokerUrl: `mqtt://127.0.0.1:${port}/` });
const topic = (kind) => `/ota/device/${kind}/${productKey}/${deviceName}`;
const report = (device, kind, params) =>
  device.publish(topic(kind), JSON.stringify({ id: "1", params }), { qos: 1 });

const device = connect();
device.on("connect", () => {
  device.subscribe(topic("upgrade"));
  report(device, "inform", { version });
});
device.on("message", (name, payload) => {
  if (name !== topic("upgrade")) return;
  const { url, sign, signMethod, version: target } = JSON.parse(payload.toString()).data;
  http.get(url, (answer) => {
    const digest = crypto.createHash(signMethod.toLowerCase());
    const file = fs.createWriteStream(path);
    answer.on("data", (block) => digest.update(block));
    answer.pipe(file);
    file.on("finish", () => {
      if (digest.digest("hex") !== sign) process.exit(4);
      report(device, "progress", { step: "100", desc: "" });
      device.end();
      const restarted = connect();
      restarted.on("connect", () => report(restarted, "inform", { version: target }));
    });
  });
});
process.stdin.on("data", () => process.exit(0)); // the test has seen what it waited for
