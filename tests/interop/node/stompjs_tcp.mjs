#!/usr/bin/env node
// @stomp/stompjs (npm) over TCP, through its own @stomp/tcp-wrapper.
// STOMP_HOST and STOMP_PORT say where; one line per check, then a summary.
import { runChecks } from './checks.mjs';
import { broker, host, load, port, run, wait } from './modules.mjs';

const { Client, Versions } = load('@stomp/stompjs');
const { TCPWrapper } = load('@stomp/tcp-wrapper');

const { passed, failed } = await runChecks(
  {
    Client,
    Versions,
    transport: () => ({ webSocketFactory: () => new TCPWrapper(host, port) }),
    label: 'stompjs TCP',
    run: run('jt'),
    broker,
    wait,
    only: process.argv[2],
  },
  console.log,
);
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
