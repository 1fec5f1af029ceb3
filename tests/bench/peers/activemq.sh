#!/usr/bin/env bash
# ActiveMQ Classic, of Debian: STOMP 1.0 to 1.2, MQTT 3.1 and 3.1.1, OpenWire. See common.sh for the verbs.
#
# What it ships with where that matters: KahaDB, whose journal is synced before a persistent message is acknowledged
# (enableJournalDiskSyncs, true by default), 70 % of a heap of 1 GiB for messages, a thread for each connection. The limit
# of 1000 connections is raised. Without a limit of pending messages for slow topic subscribers it drops none.
#   PEER_MEMORY=1   a store in memory instead of KahaDB
#   PEER_NIO=1      its other transport, without a thread for each connection (for thousands of them)
name=activemq
ports="stomp=27113 mqtt=27183 openwire=27116"
. "$(dirname "$0")/common.sh"
home=/usr/share/activemq

# Debian's package forgets to ask for what its MQTT needs.
install() { debian activemq libmqtt-client-java; }
version() { debian_version activemq; }
durability() { echo "a persistent message is acknowledged when KahaDB's journal is synced"; }

connector() {
    echo "<transportConnector name=\"$1\" uri=\"$2://127.0.0.1:$(port_of "$1")?maximumConnections=100000&amp;wireFormat.maxFrameSize=104857600\"/>"
}

configure_and_launch() {
    local nio='' tcp=tcp persistent=true
    if [ "${PEER_NIO:-0}" = 1 ]; then nio=+nio tcp=nio; fi
    if [ "${PEER_MEMORY:-0}" = 1 ]; then persistent=false; fi
    cat >"$room/activemq.xml" <<END
<beans xmlns="http://www.springframework.org/schema/beans" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
    xsi:schemaLocation="http://www.springframework.org/schema/beans http://www.springframework.org/schema/beans/spring-beans.xsd
        http://activemq.apache.org/schema/core http://activemq.apache.org/schema/core/activemq-core.xsd">
  <broker xmlns="http://activemq.apache.org/schema/core" brokerName="peer" dataDirectory="$room" persistent="$persistent">
    <managementContext><managementContext createConnector="false"/></managementContext>
    <persistenceAdapter><kahaDB directory="$room/kahadb"/></persistenceAdapter>
    <systemUsage><systemUsage><memoryUsage><memoryUsage percentOfJvmHeap="70"/></memoryUsage></systemUsage></systemUsage>
    <transportConnectors>
      $(connector openwire "$tcp")
      $(connector stomp "stomp$nio")
      $(connector mqtt "mqtt$nio")
    </transportConnectors>
  </broker>
</beans>
END
    cat >"$room/log4j.properties" <<END
log4j.rootLogger=WARN, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.SimpleLayout
END
    launch java -Xms64M -Xmx1G -Djava.awt.headless=true -Djava.io.tmpdir="$room" \
        --add-opens java.base/java.lang=ALL-UNNAMED --add-opens java.base/java.util=ALL-UNNAMED \
        -Dactivemq.home=$home -Dactivemq.base="$room" -Dactivemq.conf="$room" -Dactivemq.data="$room" \
        -Dactivemq.classpath="$room:/usr/share/java/mqtt-client.jar" \
        -jar $home/bin/activemq.jar start "xbean:file:$room/activemq.xml"
}

peer "$@"
