#!/usr/bin/ruby
# frozen_string_literal: false

# The Ruby stomp gem (Debian: ruby-stomp) against a running broker, STOMP 1.0,
# 1.1 and 1.2, the last also with CR LF line ends.
# STOMP_HOST and STOMP_PORT say where; one line per check, then a summary.

require 'stomp'
require 'timeout'

HOST = ENV.fetch('STOMP_HOST', '127.0.0.1')
PORT = ENV.fetch('STOMP_PORT', '61613').to_i
BROKER = ENV.fetch('BROKER', 'sabir')
WAIT = ENV.fetch('INTEROP_WAIT', '30').to_i
RUN = "rb#{Process.pid}x#{(Time.now.to_f * 1000).to_i % 1_000_000_000}"
# Name of the dialect, its version, what else the connection is given.
DIALECTS = [
  ['1.0', '1.0', {}],
  ['1.1', '1.1', {}],
  ['1.2', '1.2', {}],
  ['1.2 crlf', '1.2', { usecrlf: true, stompconn: true }]
].freeze
$stdout.sync = true

# A check that did not hold.
class Failed < StandardError; end

def expect(got, wanted, what)
  raise Failed, "#{what}: expected #{wanted.inspect[0, 200]}, got #{got.inspect[0, 200]}" unless got == wanted
end

# One connection of one dialect.
class Peer
  attr_reader :gem, :version

  def initialize(dialect, headers = {})
    @label, @version, options = dialect
    headers = { 'accept-version' => @version, 'host' => 'localhost' }.merge(headers) unless @version == '1.0'
    @gem = Stomp::Connection.new({ hosts: [{ login: '', passcode: '', host: HOST, port: PORT }], reliable: false,
                                   connect_headers: headers, parse_timeout: WAIT, connread_timeout: WAIT,
                                   autoflush: true }.merge(options))
    raise Failed, 'no connection' unless @gem.connection_frame
    expect(@gem.connection_frame.command, 'CONNECTED', 'CONNECT')
    expect(@gem.protocol, @version, 'version')
    @receipts = 0
  end

  def frame(command)
    got = Timeout.timeout(WAIT, Failed, "no #{command} within #{WAIT} s") { @gem.receive }
    raise Failed, "connection closed while waiting for #{command}" unless got
    raise Failed, "expected #{command}, got #{got.command} #{got.headers}" unless got.command == command

    got
  end

  def take
    frame('MESSAGE')
  end

  def bodies(count)
    Array.new(count) { take.body }
  end

  # Adds a receipt to the headers, hands them to the block and waits for the receipt.
  def checked(headers = {})
    receipt = "r#{@receipts += 1}"
    yield headers.merge('receipt' => receipt)
    expect(frame('RECEIPT').headers['receipt-id'], receipt, 'receipt-id')
  end

  def send(destination, body, headers = {})
    @gem.publish(destination, body, headers)
  end

  def send_checked(destination, body, headers = {})
    checked(headers) { |h| @gem.publish(destination, body, h) }
  end

  def subscribe(destination, headers = {})
    checked({ 'id' => '1', 'ack' => 'auto' }.merge(headers)) { |h| @gem.subscribe(destination, h) }
  end

  def unsubscribe(destination, headers = {})
    checked({ 'id' => '1' }.merge(headers)) { |h| @gem.unsubscribe(destination, h) }
  end

  def settle(verb, message, headers = {})
    headers = headers.merge('subscription' => message.headers['subscription']) if @version == '1.1'
    name = @version == '1.2' ? message.headers['ack'] : message.headers['message-id']
    checked(headers) { |h| @gem.public_send(verb, name, h) }
  end

  def ack(message, headers = {})
    settle(:ack, message, headers)
  end

  def leave
    @gem.disconnect('receipt' => 'bye')
    expect(@gem.disconnect_receipt.headers['receipt-id'], 'bye', 'receipt of DISCONNECT')
  end
end

def name(kind, what, dialect)
  "/#{kind}/#{RUN}.#{what}.v#{dialect[0].delete('. ')}"
end

CHECKS = {}

def check(name, &body)
  CHECKS[name] = body
end

check 'in_order' do |d|
  q = name('queue', 'order', d)
  producer = Peer.new(d)
  consumer = Peer.new(d)
  consumer.subscribe(q)
  2000.times { |i| producer.send(q, "message #{i} #{'x' * (i % 90)}") }
  2000.times { |i| expect(consumer.take.body, "message #{i} #{'x' * (i % 90)}", 'body') }
  [producer, consumer].each(&:leave)
end

check 'pipelined_receipts' do |d|
  q = name('queue', 'receipts', d)
  peer = Peer.new(d)
  500.times { |i| peer.send(q, "m#{i}", 'persistent' => 'true', 'receipt' => "p#{i}") }
  500.times { |i| expect(peer.frame('RECEIPT').headers['receipt-id'], "p#{i}", 'receipt') }
  peer.subscribe(q)
  expect(peer.bodies(500), Array.new(500) { |i| "m#{i}" }, 'bodies')
  peer.leave
end

check 'bodies' do |d|
  q = name('queue', 'bodies', d)
  producer = Peer.new(d)
  consumer = Peer.new(d)
  consumer.subscribe(q)
  random = Random.new(3)
  bodies = ['', 'x', "na\u00efve \u{1f980}\u{1f4a9}", "a\0b\0\0", (0..255).to_a.pack('C*'), "\n\n\n", "\r\n",
            random.bytes(65_536), 'text ' * 100_000, random.bytes(1 << 20), 'after the big one']
  bodies.each { |body| producer.send(q, body) }
  bodies.each_with_index do |body, i|
    got = consumer.take.body
    raise Failed, "body #{i}, #{body.bytesize} bytes, came back as #{got.bytesize}" unless got.b == body.b
  end
  producer.send(q, 'no length', suppress_content_length: true)
  expect(consumer.take.body, 'no length', 'without content-length')
  [producer, consumer].each(&:leave)
end

check 'headers' do |d|
  q = name('queue', 'headers', d)
  headers = { 'plain' => 'value', 'colon' => 'a:b:c', 'long' => 'h' * 4000 }
  unless d[1] == '1.0'
    headers.merge!('newline' => "one\ntwo", 'backslash' => 'c:\\dir\\file', 'unicode' => "snow \u2603 \u{1f980}")
  end
  peer = Peer.new(d)
  peer.subscribe(q)
  peer.send(q, 'body', headers.dup)
  got = peer.take
  headers.each do |key, value|
    # With parallel values of one name the gem makes an array: that must not happen.
    expect(got.headers[key].to_s.dup.force_encoding('UTF-8'), value, "header #{key}")
  end
  expect(got.headers['destination'], q, 'destination')
  unless d[1] == '1.0'
    # The first of several values of one name wins.
    peer.send(q, 'twice', 'twice' => %w[first second])
    expect([peer.take.headers['twice']].flatten.first, 'first', 'repeated header')
  end
  peer.leave
end

check 'acknowledgements' do |d|
  [['client', [5], (6..9)], ['client', [0, 3], (4..9)], ['client-individual', [1, 8], [0, 2, 3, 4, 5, 6, 7, 9]],
   ['auto', [], []]].each_with_index do |(mode, acks, back), i|
    q = name('queue', "ack#{i}", d)
    peer = Peer.new(d)
    10.times { |n| peer.send(q, "m#{n}", 'persistent' => 'true') }
    # No receipt here: it would come among the messages.
    peer.gem.subscribe(q, { 'ack' => mode, 'id' => '1' })
    messages = Array.new(10) { peer.take }
    expect(messages.map(&:body), Array.new(10) { |n| "m#{n}" }, "#{mode}: first delivery")
    acks.each { |n| peer.ack(messages[n]) }
    peer.leave
    peer = Peer.new(d)
    peer.gem.subscribe(q, { 'ack' => 'auto', 'id' => '1' })
    messages = back.map { peer.take }
    expect(messages.map(&:body), back.map { |n| "m#{n}" }, "#{mode}: came back")
    expect(messages.map { |m| m.headers['redelivered'] }.uniq - ['true'], [], "#{mode}: redelivered")
    peer.send(q, 'sentinel')
    expect(peer.take.body, 'sentinel', "#{mode}: nothing more")
    peer.leave
  end
end

check 'nack' do |d|
  next if d[1] == '1.0' || BROKER != 'sabir'

  q = name('queue', 'nack', d)
  peer = Peer.new(d)
  peer.subscribe(q, 'ack' => 'client-individual')
  peer.send(q, 'once more')
  message = peer.take
  headers = d[1] == '1.1' ? { 'subscription' => message.headers['subscription'] } : {}
  peer.gem.nack(message.headers[d[1] == '1.1' ? 'message-id' : 'ack'], headers)
  message = peer.take
  expect([message.body, message.headers['redelivered']], ['once more', 'true'], 'after NACK')
  peer.ack(message)
  peer.send(q, 'sentinel')
  expect(peer.take.body, 'sentinel', 'after the acknowledgement')
  peer.leave
end

check 'transactions' do |d|
  q = name('queue', 'tx', d)
  peer = Peer.new(d)
  peer.checked { |h| peer.gem.begin('one', h) }
  peer.checked { |h| peer.gem.begin('two', h) }
  20.times do |i|
    peer.send(q, "one #{i}", 'transaction' => 'one')
    peer.send(q, "two #{i}", 'transaction' => 'two')
  end
  peer.send_checked(q, 'outside')
  peer.checked { |h| peer.gem.abort('two', h) }
  peer.checked { |h| peer.gem.commit('one', h) }
  peer.send_checked(q, 'sentinel')
  consumer = Peer.new(d)
  consumer.gem.subscribe(q, { 'ack' => 'client-individual', 'id' => '1' })
  messages = Array.new(22) { consumer.take }
  expect(messages.map(&:body), ['outside'] + Array.new(20) { |i| "one #{i}" } + ['sentinel'], 'committed only')
  consumer.checked { |h| consumer.gem.begin('three', h) }
  messages[0, 20].each { |m| consumer.ack(m, 'transaction' => 'three') }
  consumer.checked { |h| consumer.gem.commit('three', h) }
  consumer.checked { |h| consumer.gem.begin('four', h) }
  messages[20, 2].each { |m| consumer.ack(m, 'transaction' => 'four') }
  consumer.checked { |h| consumer.gem.abort('four', h) }
  consumer.leave
  consumer = Peer.new(d)
  consumer.gem.subscribe(q, { 'ack' => 'auto', 'id' => '1' })
  expect(consumer.bodies(2), ['one 19', 'sentinel'], 'left over')
  [peer, consumer].each(&:leave)
end

check 'durable' do |d|
  topic = name('topic', 'durable', d)
  who = "#{RUN}-#{d[0].delete('. ')}"
  durable = { 'activemq.subscriptionName' => who }
  peer = Peer.new(d, 'client-id' => who)
  peer.subscribe(topic, durable)
  peer.leave
  producer = Peer.new(d)
  99.times { |i| producer.send(topic, "m#{i}", 'persistent' => 'true') }
  producer.send_checked(topic, 'm99', 'persistent' => 'true')
  peer = Peer.new(d, 'client-id' => who)
  peer.gem.subscribe(topic, { 'id' => '1' }.merge(durable))
  expect(peer.bodies(100), Array.new(100) { |i| "m#{i}" }, 'kept while away')
  peer.unsubscribe(topic)
  peer.unsubscribe(topic, durable)
  peer.leave
  producer.send_checked(topic, 'nobody keeps this', 'persistent' => 'true')
  peer = Peer.new(d, 'client-id' => who)
  peer.subscribe(topic, durable)
  producer.send(topic, 'sentinel')
  expect(peer.take.body, 'sentinel', 'nothing kept after unsubscribe')
  peer.unsubscribe(topic)
  peer.unsubscribe(topic, durable)
  [peer, producer].each(&:leave)
end

check 'request_reply' do |d|
  q = name('queue', 'service', d)
  asker = Peer.new(d)
  server = Peer.new(d)
  server.subscribe(q)
  asker.subscribe('/temp-queue/answers')
  200.times do |i|
    asker.send(q, "ask #{i}", 'reply-to' => '/temp-queue/answers', 'correlation-id' => "c:#{i}")
    request = server.take
    server.send(request.headers['reply-to'], "answer to #{request.body}",
                'correlation-id' => request.headers['correlation-id'])
    reply = asker.take
    expect([reply.body, reply.headers['correlation-id']], ["answer to ask #{i}", "c:#{i}"], 'reply')
  end
  [asker, server].each(&:leave)
end

check 'selector_wildcard_composite' do |d|
  a = name('queue', 'sel.a', d)
  b = name('queue', 'sel.b', d)
  peer = Peer.new(d)
  9.times { |i| peer.send("#{a},#{b}", "m#{i}", 'n' => i.to_s) }
  peer.send_checked("#{a},#{b}", 'm9', 'n' => '9')
  consumer = Peer.new(d)
  consumer.gem.subscribe(a, { 'id' => '1', 'selector' => 'n > 6' })
  expect(consumer.bodies(3), %w[m7 m8 m9], 'selector')
  consumer.leave
  consumer = Peer.new(d)
  consumer.gem.subscribe(name('queue', 'sel.*', d), { 'id' => '1' })
  expect(consumer.bodies(17).sort, ((0..6).to_a + (0..9).to_a).map { |i| "m#{i}" }.sort, 'wildcard')
  [peer, consumer].each(&:leave)
end

check 'virtual_topic' do |d|
  topic = "VirtualTopic.#{RUN}.v#{d[0].delete('. ')}"
  one, two, plain, producer = Array.new(4) { Peer.new(d) }
  one.subscribe("/queue/Consumer.A.#{topic}")
  two.subscribe("/queue/Consumer.B.#{topic}")
  plain.subscribe("/topic/#{topic}")
  200.times { |i| producer.send("/topic/#{topic}", "m#{i}") }
  [one, two, plain].each { |peer| expect(peer.bodies(200), Array.new(200) { |i| "m#{i}" }, 'each gets all') }
  [one, two, plain, producer].each(&:leave)
end

check 'browse' do |d|
  next if d[1] == '1.0'

  q = name('queue', 'browse', d)
  peer = Peer.new(d)
  10.times { |i| peer.send_checked(q, "m#{i}") }
  peer.gem.subscribe(q, { 'id' => '1', 'browser' => 'true' })
  expect(peer.bodies(10), Array.new(10) { |i| "m#{i}" }, 'browsed')
  expect(peer.take.headers['browser'], 'end', 'end marker')
  peer.unsubscribe(q)
  peer.gem.subscribe(q, { 'id' => '2' })
  expect(peer.bodies(10), Array.new(10) { |i| "m#{i}" }, 'still there')
  peer.leave
end

check 'heart_beats' do |d|
  next if d[1] == '1.0'

  q = name('queue', 'beats', d)
  peer = Peer.new(d, 'heart-beat' => '1000,1000')
  other = Peer.new(d)
  deadline = Time.now + WAIT
  # The gem counts beats in its own threads: wait for them, not for a time.
  until peer.gem.hbsend_count >= 2 && peer.gem.hbrecv_count >= 2
    raise Failed, "beats sent #{peer.gem.hbsend_count}, received #{peer.gem.hbrecv_count}" if Time.now > deadline

    Thread.pass
    IO.select(nil, nil, nil, 0.05)
  end
  peer.gem.subscribe(q, { 'id' => '1' })
  other.send(q, 'still here')
  expect(peer.take.body, 'still here', 'after the beats')
  [peer, other].each(&:leave)
end

check 'error' do |d|
  peer = Peer.new(d)
  peer.gem.subscribe(name('queue', 'error', d), { 'id' => '1', 'selector' => 'not ( SQL' })
  raise Failed, 'ERROR without a message' if peer.frame('ERROR').headers['message'].to_s.empty?
end

passed = failed = 0
only = ARGV[0].to_s
DIALECTS.each do |dialect|
  CHECKS.each do |name, body|
    label = "Ruby stomp #{dialect[0]} #{name}"
    next unless label.include?(only)

    begin
      body.call(dialect)
      passed += 1
      puts "ok   #{label}"
    rescue StandardError => e
      failed += 1
      puts "FAIL #{label}: #{e.message.empty? ? e.class : e.message}"
      puts e.backtrace.first(6).map { |line| "     #{line}" } unless e.is_a?(Failed)
    end
  end
end
puts "#{passed} passed, #{failed} failed"
exit(failed.zero? ? 0 : 1)
