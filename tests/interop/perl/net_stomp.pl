#!/usr/bin/perl
# Net::Stomp (Debian: libnet-stomp-perl) against a running broker.
#
# Net::Stomp writes the headers it is given and decodes none, so it speaks 1.1
# and 1.2 as far as its caller escapes. STOMP_HOST and STOMP_PORT say where.
use strict;
use warnings;
use Log::Any::Adapter 'Null';
use Net::Stomp;
use Net::Stomp::Frame;
use Time::HiRes qw(time);

my $host   = $ENV{STOMP_HOST}   // '127.0.0.1';
my $port   = $ENV{STOMP_PORT}   // 61613;
my $broker = $ENV{BROKER}       // 'sabir';
my $wait   = $ENV{INTEROP_WAIT} // 30;
my $run    = sprintf 'pl%dx%d', $$, (time * 1000) % 1_000_000_000;
my ($passed, $failed) = (0, 0);
local $| = 1;

sub expect {
    my ($got, $wanted, $what) = @_;
    $_ = defined $_ ? substr("$_", 0, 200) : '(nothing)' for (my ($g, $w) = ($got, $wanted));
    die "$what: expected '$w', got '$g'\n" unless defined $got && $got eq $wanted;
}

sub connection {
    my ($version, %headers) = @_;
    my $stomp = Net::Stomp->new(
        { hostname => $host, port => $port, timeout => $wait, receipt_timeout => $wait, bufsize => 65536 });
    $headers{'accept-version'} = $version unless $version eq '1.0';
    $headers{host} = 'localhost';
    my $frame = $stomp->connect(\%headers);
    expect($frame && $frame->command, 'CONNECTED', 'CONNECT');
    expect($frame->headers->{version} // '1.0', $version, 'version');
    # Net::Stomp makes receipt names of the session's and compares them undecoded, so a broker whose
    # session names hold a colon, as ActiveMQ's do, never satisfies it in 1.1 and 1.2.
    $stomp->session_id($run) if $broker eq 'activemq';
    return $stomp;
}

# The next frame, which must be of this command.
sub next_frame {
    my ($stomp, $command) = @_;
    my $frame = $stomp->receive_frame({ timeout => $wait });
    die "no $command within $wait s\n" unless $frame;
    if ($frame->command ne $command) {
        die "expected $command, got " . $frame->command . ': ' . ($frame->headers->{message} // '') . "\n";
    }
    return $frame;
}

sub bodies {
    my ($stomp, $count) = @_;
    return map { next_frame($stomp, 'MESSAGE')->body // '' } 1 .. $count;
}

my $receipts = 0;

# Sends any frame with a receipt and waits for it.
sub checked {
    my ($stomp, $command, $headers, $body) = @_;
    my $receipt = 'r' . ++$receipts;
    $stomp->send_frame(
        Net::Stomp::Frame->new({ command => $command, headers => { %$headers, receipt => $receipt }, body => $body }));
    expect(next_frame($stomp, 'RECEIPT')->headers->{'receipt-id'}, $receipt, "receipt of $command");
}

sub subscribe {
    my ($stomp, $destination, %headers) = @_;
    checked($stomp, 'SUBSCRIBE', { id => 's1', ack => 'auto', %headers, destination => $destination });
}

# ACK or NACK headers for a message, as each version wants them.
sub naming {
    my ($version, $message) = @_;
    my $h = $message->headers;
    return { id => $h->{ack} } if $version eq '1.2';
    return { 'message-id' => $h->{'message-id'}, subscription => $h->{subscription} } if $version eq '1.1';
    return { 'message-id' => $h->{'message-id'} };
}

sub acknowledge {
    my ($stomp, $version, $message, %more) = @_;
    checked($stomp, $more{nack} ? 'NACK' : 'ACK', { %{ naming($version, $message) }, %{ $more{headers} // {} } });
}

sub leave {
    my ($stomp) = @_;
    checked($stomp, 'DISCONNECT', {});
    $stomp->_close_socket;
}

sub joined { return join ' ', @_ }

sub queue { my ($what, $version) = @_; $version =~ tr/.//d; return "/queue/$run.$what.v$version" }

my @checks = (
    in_order => sub {
        my ($v) = @_;
        my $q = queue('order', $v);
        my ($producer, $consumer) = (connection($v), connection($v));
        subscribe($consumer, $q);
        $producer->send({ destination => $q, body => "message $_ " . 'x' x ($_ % 90) }) for 1 .. 1999;
        $producer->send_with_receipt({ destination => $q, body => 'message 2000' }) or die "no receipt\n";
        for my $i (1 .. 1999) {
            expect(next_frame($consumer, 'MESSAGE')->body, "message $i " . 'x' x ($i % 90), 'body');
        }
        expect(next_frame($consumer, 'MESSAGE')->body, 'message 2000', 'last body');
        leave($_) for $producer, $consumer;
    },
    sent_one_by_one_with_receipt => sub {
        my ($v) = @_;
        my $q = queue('receipt', $v);
        my $stomp = connection($v);
        for my $i (1 .. 300) {
            $stomp->send_with_receipt({ destination => $q, body => "m$i", persistent => 'true' }) or die "no receipt\n";
        }
        subscribe($stomp, $q);
        expect(joined(bodies($stomp, 300)), joined(map {"m$_"} 1 .. 300), 'bodies');
        leave($stomp);
    },
    shapes => sub {
        my ($v) = @_;
        my $q = queue('shapes', $v);
        my ($producer, $consumer) = (connection($v), connection($v));
        subscribe($consumer, $q);
        my $crab = "\xf0\x9f\xa6\x80";
        my @text = ('', 'x', "na\xc3\xafve $crab", "lines\n\nof\n", 'long ' x 50_000);
        my @binary = ("\0", "a\0b\0", join('', map {chr} 0 .. 255), "\0\1\2\3" x 262_144);
        $producer->send({ destination => $q, body => $_ }) for @text;
        $producer->send({ destination => $q, body => $_, bytes_message => 1 }) for @binary;
        for my $body (@text, @binary) {
            my $got = next_frame($consumer, 'MESSAGE')->body // '';
            die 'a body of ' . length($body) . " bytes came back different\n" unless $got eq $body;
        }
        # Net::Stomp decodes nothing: what 1.1 and 1.2 carry escaped comes back escaped.
        my $value = $v eq '1.0' ? 'a:b' : 'a\cb\nc\\\\d' . $crab;
        $producer->send({ destination => $q, body => 'h', special => $value, plain => 'p' });
        my $message = next_frame($consumer, 'MESSAGE');
        expect($message->headers->{special}, $value, 'special header');
        expect($message->headers->{plain}, 'p', 'plain header');
        leave($_) for $producer, $consumer;
    },
    acknowledgements => sub {
        my ($v) = @_;
        for my $case (
            [ 'client', [5], [ 6 .. 9 ] ],
            [ 'client', [ 0, 3 ], [ 4 .. 9 ] ],
            [ 'client-individual', [ 1, 8 ], [ 0, 2 .. 7, 9 ] ],
            [ 'auto', [], [] ],
        ) {
            my ($mode, $acks, $back) = @$case;
            my $q = queue("ack.$mode." . @$acks, $v);
            my $stomp = connection($v);
            subscribe($stomp, $q, ack => $mode);
            my $producer = connection($v);
            $producer->send({ destination => $q, body => "m$_", persistent => 'true' }) for 0 .. 9;
            leave($producer);
            my @messages = map { next_frame($stomp, 'MESSAGE') } 0 .. 9;
            expect(joined(map { $_->body } @messages), joined(map {"m$_"} 0 .. 9), "$mode: first delivery");
            acknowledge($stomp, $v, $messages[$_]) for @$acks;
            leave($stomp);
            $stomp = connection($v);
            subscribe($stomp, $q, ack => 'auto');
            @messages = map { next_frame($stomp, 'MESSAGE') } @$back;
            expect(joined(map { $_->body } @messages), joined(map {"m$_"} @$back), "$mode: came back");
            expect($_->headers->{redelivered}, 'true', "$mode: redelivered") for @messages;
            $stomp->send({ destination => $q, body => 'sentinel' });
            expect(next_frame($stomp, 'MESSAGE')->body, 'sentinel', "$mode: nothing more");
            leave($stomp);
        }
    },
    nack => sub {
        my ($v) = @_;
        return if $v eq '1.0' || $broker ne 'sabir';
        my $q = queue('nack', $v);
        my $stomp = connection($v);
        subscribe($stomp, $q, ack => 'client-individual');
        $stomp->send({ destination => $q, body => 'once more' });
        my $message = next_frame($stomp, 'MESSAGE');
        $stomp->nack({ frame => $message, %{ naming($v, $message) } });
        $message = next_frame($stomp, 'MESSAGE');
        expect($message->body, 'once more', 'redelivered body');
        expect($message->headers->{redelivered}, 'true', 'redelivered');
        $stomp->ack({ frame => $message, %{ naming($v, $message) } });
        leave($stomp);
    },
    transactions => sub {
        my ($v) = @_;
        my $q = queue('tx', $v);
        my ($stomp, $consumer) = (connection($v), connection($v));
        $stomp->send_transactional({ destination => $q, body => "t$_" }) or die "not committed\n" for 1 .. 20;
        subscribe($consumer, $q);
        expect(joined(bodies($consumer, 20)), joined(map {"t$_"} 1 .. 20), 'send_transactional');
        for my $verb ('COMMIT', 'ABORT') {
            checked($stomp, 'BEGIN', { transaction => $verb });
            $stomp->send({ destination => $q, body => "$verb $_", transaction => $verb }) for 1 .. 20;
            checked($stomp, 'SEND', { destination => $q }, "before $verb");
            expect(next_frame($consumer, 'MESSAGE')->body, "before $verb", 'invisible before');
            checked($stomp, $verb, { transaction => $verb });
            next if $verb eq 'ABORT';
            expect(joined(bodies($consumer, 20)), joined(map {"COMMIT $_"} 1 .. 20), 'after COMMIT');
        }
        checked($stomp, 'SEND', { destination => $q }, 'sentinel');
        expect(next_frame($consumer, 'MESSAGE')->body, 'sentinel', 'nothing after ABORT');
        leave($_) for $stomp, $consumer;
    },
    transaction_order => sub {
        my ($v) = @_;
        my $q = queue('txorder', $v);
        my ($stomp, $consumer) = (connection($v), connection($v));
        checked($stomp, 'BEGIN',  { transaction => 'a' });
        checked($stomp, 'SEND',   { destination => $q, transaction => 'a' }, "in a $_") for 1 .. 3;
        checked($stomp, 'BEGIN',  { transaction => 'b' });
        checked($stomp, 'SEND',   { destination => $q, transaction => 'b' }, 'in b');
        checked($stomp, 'ABORT',  { transaction => 'b' });
        checked($stomp, 'COMMIT', { transaction => 'a' });
        checked($stomp, 'SEND',   { destination => $q }, 'sentinel');
        subscribe($consumer, $q, ack => 'client-individual');
        my @messages = map { next_frame($consumer, 'MESSAGE') } 1 .. 4;
        expect(joined(map { $_->body } @messages), 'in a 1 in a 2 in a 3 sentinel', 'committed only');
        checked($consumer, 'BEGIN', { transaction => 'c' });
        acknowledge($consumer, $v, $messages[$_], headers => { transaction => 'c' }) for 0, 1;
        checked($consumer, 'COMMIT', { transaction => 'c' });
        checked($consumer, 'BEGIN', { transaction => 'd' });
        acknowledge($consumer, $v, $messages[2], headers => { transaction => 'd' });
        checked($consumer, 'ABORT', { transaction => 'd' });
        leave($consumer);
        $consumer = connection($v);
        subscribe($consumer, $q);
        expect(joined(bodies($consumer, 2)), 'in a 3 sentinel', 'acknowledged in a transaction');
        leave($_) for $stomp, $consumer;
    },
    durable => sub {
        my ($v) = @_;
        my $topic = queue('durable', $v);
        $topic =~ s{^/queue}{/topic};
        (my $who = "$run-$v") =~ tr/.//d;
        my $stomp = connection($v, 'client-id' => $who);
        subscribe($stomp, $topic, 'activemq.subscriptionName' => $who);
        leave($stomp);
        my $producer = connection($v);
        $producer->send({ destination => $topic, body => "m$_", persistent => 'true' }) for 1 .. 99;
        $producer->send_with_receipt({ destination => $topic, body => 'm100', persistent => 'true' }) or die "no receipt\n";
        $stomp = connection($v, 'client-id' => $who);
        # No receipt here: it would arrive among the messages.
        $stomp->subscribe({ destination => $topic, id => 's1', ack => 'auto', 'activemq.subscriptionName' => $who });
        expect(joined(bodies($stomp, 100)), joined(map {"m$_"} 1 .. 100), 'kept while away');
        checked($stomp, 'UNSUBSCRIBE', { id => 's1' });
        checked($stomp, 'UNSUBSCRIBE', { id => 's1', 'activemq.subscriptionName' => $who });
        leave($_) for $stomp, $producer;
    },
    request_reply => sub {
        my ($v) = @_;
        my $q = queue('service', $v);
        my ($asker, $server) = (connection($v), connection($v));
        subscribe($server, $q);
        subscribe($asker, '/temp-queue/answers');
        for my $i (1 .. 100) {
            $asker->send(
                { destination => $q, body => "ask $i", 'reply-to' => '/temp-queue/answers', 'correlation-id' => "c$i" });
            my $request = next_frame($server, 'MESSAGE');
            # Escaped or not, the name goes back as it came.
            $server->send({
                destination      => $request->headers->{'reply-to'},
                body             => 'answer to ' . $request->body,
                'correlation-id' => $request->headers->{'correlation-id'},
            });
            my $reply = next_frame($asker, 'MESSAGE');
            expect($reply->body, "answer to ask $i", 'reply');
            expect($reply->headers->{'correlation-id'}, "c$i", 'correlation-id');
        }
        leave($_) for $asker, $server;
    },
    selector_wildcard_composite => sub {
        my ($v) = @_;
        my ($a, $b) = (queue('sel.a', $v), queue('sel.b', $v));
        (my $any = $a) =~ s{\.a\.}{.*.};
        my $stomp = connection($v);
        $stomp->send({ destination => "$a,$b", body => "m$_", n => $_ }) for 1 .. 10;
        my $consumer = connection($v);
        $consumer->subscribe({ destination => $a, id => 'x', ack => 'auto', selector => 'n > 7' });
        expect(joined(bodies($consumer, 3)), 'm8 m9 m10', 'selector');
        leave($consumer);
        $consumer = connection($v);
        $consumer->subscribe({ destination => $any, id => 'y', ack => 'auto' });
        expect(joined(sort(bodies($consumer, 17))), joined(sort((map {"m$_"} 1 .. 7), (map {"m$_"} 1 .. 10))), 'wildcard');
        leave($_) for $consumer, $stomp;
    },
    virtual_topic => sub {
        my ($v) = @_;
        (my $topic = "VirtualTopic.$run.$v") =~ s/(\d)\.(\d)$/v$1$2/;
        my ($one, $two, $producer) = map { connection($v) } 1 .. 3;
        subscribe($one, "/queue/Consumer.A.$topic");
        subscribe($two, "/queue/Consumer.B.$topic");
        $producer->send({ destination => "/topic/$topic", body => "m$_" }) for 1 .. 200;
        expect(joined(bodies($_, 200)), joined(map {"m$_"} 1 .. 200), 'each group gets all') for $one, $two;
        leave($_) for $one, $two, $producer;
    },
    browse => sub {
        my ($v) = @_;
        return if $v eq '1.0';
        my $q = queue('browse', $v);
        my $stomp = connection($v);
        $stomp->send_with_receipt({ destination => $q, body => "m$_" }) for 1 .. 10;
        $stomp->subscribe({ destination => $q, id => 'b', browser => 'true' });
        expect(joined(bodies($stomp, 10)), joined(map {"m$_"} 1 .. 10), 'browsed');
        expect(next_frame($stomp, 'MESSAGE')->headers->{browser}, 'end', 'end marker');
        checked($stomp, 'UNSUBSCRIBE', { id => 'b' });
        $stomp->subscribe({ destination => $q, id => 'c', ack => 'auto' });
        expect(joined(bodies($stomp, 10)), joined(map {"m$_"} 1 .. 10), 'still there');
        leave($stomp);
    },
    error => sub {
        my ($v) = @_;
        my $stomp = connection($v);
        $stomp->subscribe({ destination => queue('error', $v), id => 'e', selector => 'not ( SQL' });
        my $frame = next_frame($stomp, 'ERROR');
        die "ERROR without a message\n" unless length($frame->headers->{message} // '');
        $stomp->_close_socket;
    },
);

my $only = $ARGV[0] // '';
for my $version ('1.0', '1.1', '1.2') {
    for (my $i = 0; $i < @checks; $i += 2) {
        my ($name, $check) = @checks[ $i, $i + 1 ];
        my $label = "Net::Stomp $version $name";
        next if index($label, $only) < 0;
        if (eval { $check->($version); 1 }) {
            $passed++;
            print "ok   $label\n";
        } else {
            $failed++;
            chomp(my $why = $@ || 'died');
            print "FAIL $label: $why\n";
        }
    }
}
print "$passed passed, $failed failed\n";
exit($failed ? 1 : 0);
