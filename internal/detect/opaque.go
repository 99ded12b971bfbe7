package detect

import (
	"bytes"
	"encoding/binary"
)

// Startup codes of the PostgreSQL protocol (docs "Message Formats").
const (
	postgresStartup3  = 3 << 16
	postgresStartup32 = 3<<16 | 2
	postgresCancel    = 80877102
	postgresSSL       = 80877103
	postgresGSS       = 80877104
	postgresMaxStart  = 10000 // MAX_STARTUP_PACKET_LENGTH of the server
)

// MongoDB wire protocol: opcodes of the first message of a client.
const (
	mongoHeader  = 16
	mongoQuery   = 2004
	mongoMessage = 2013
	mongoMax     = 48000000 // maxMessageSizeBytes
)

// Kafka request header: the ranges leave room for keys and versions to come.
const (
	kafkaHeader     = 14
	kafkaMaxRequest = 100 << 20 // socket.request.max.bytes
	kafkaMaxKey     = 110
	kafkaMaxVersion = 25
	kafkaMaxClient  = 255
)

// maxGreeting is how far the end of a greeting's first line is looked for.
const maxGreeting = 512

func clientSignatures() []signature {
	return []signature{
		{"postgres", postgres},
		{"redis", redis},
		{"ssh", func(p []byte) verdict { return literal(p, "SSH-") }},
		{"amqp", func(p []byte) verdict { return literal(p, "AMQP") }},
		{"mqtt", mqtt},
		{"kafka", kafka},
		{"mongo", mongo},
	}
}

func serverSignatures() []signature {
	return []signature{
		{"ssh", func(p []byte) verdict { return literal(p, "SSH-") }},
		{"nats", func(p []byte) verdict { return literal(p, "INFO {") }},
		{"pop3", func(p []byte) verdict { return literal(p, "+OK") }},
		{"imap", func(p []byte) verdict { return literal(p, "* OK") }},
		{"rsync", func(p []byte) verdict { return literal(p, "@RSYNCD:") }},
		{"vnc", func(p []byte) verdict { return literal(p, "RFB ") }},
		{"ftp", func(p []byte) verdict { return greeting220(p, "ftp", "filezilla") }},
		{"smtp", func(p []byte) verdict { return greeting220(p, "smtp", "postfix", "exim") }},
		{"mysql", mysql},
	}
}

func postgres(p []byte) verdict {
	if len(p) < 8 {
		for _, b := range p[:min(len(p), 2)] { // the length is below 10000
			if b != 0 {
				return no
			}
		}
		return maybe
	}
	size := binary.BigEndian.Uint32(p)
	switch binary.BigEndian.Uint32(p[4:]) {
	case postgresSSL, postgresGSS:
		return when(size == 8)
	case postgresCancel:
		return when(size == 16)
	case postgresStartup3, postgresStartup32:
		return when(size > 8 && size <= postgresMaxStart)
	}
	return no
}

// redis is RESP ("*2\r\n$3\r\n…") or one of the commands that people and health
// checks type without framing.
func redis(p []byte) verdict {
	if len(p) == 0 || p[0] == '*' {
		return resp(p)
	}
	line, _, ended := bytes.Cut(p[:min(len(p), 64)], []byte("\r\n"))
	for _, word := range []string{"PING", "INFO", "AUTH ", "HELLO 2", "HELLO 3", "SELECT ", "COMMAND"} {
		n := min(len(line), len(word))
		if !bytes.EqualFold(line[:n], []byte(word[:n])) {
			continue
		}
		switch {
		case n < len(word) && ended:
		case n < len(word):
			return maybe
		case ended && (len(line) == n || word[n-1] == ' ' || line[n] == ' '):
			return yes
		case !ended && len(p) < 64:
			return maybe
		}
	}
	return no
}

func resp(p []byte) verdict {
	i := 1
	for i < len(p) && i < 8 && p[i] >= '0' && p[i] <= '9' {
		i++
	}
	if i >= len(p) {
		return maybe
	}
	if i == 1 {
		return no
	}
	return literal(p[i:], "\r\n$")
}

// mqtt is CONNECT: type, remaining length of 1 to 4 bytes, protocol name.
func mqtt(p []byte) verdict {
	if len(p) == 0 {
		return maybe
	}
	if p[0] != 0x10 {
		return no
	}
	for i := 1; i <= 4; i++ {
		if i >= len(p) {
			return maybe
		}
		if p[i] < 0x80 {
			return literal(p[i+1:], "\x00\x04MQTT")
		}
	}
	return no
}

func mongo(p []byte) verdict {
	if len(p) >= 4 {
		if size := binary.LittleEndian.Uint32(p); size < mongoHeader || size > mongoMax {
			return no
		}
	}
	if len(p) < mongoHeader {
		return maybe
	}
	if binary.LittleEndian.Uint32(p[8:]) != 0 { // responseTo
		return no
	}
	op := binary.LittleEndian.Uint32(p[12:])
	return when(op == mongoQuery || op == mongoMessage)
}

func kafka(p []byte) verdict {
	if len(p) >= 4 {
		if size := binary.BigEndian.Uint32(p); size < kafkaHeader-4 || size > kafkaMaxRequest {
			return no
		}
	}
	if len(p) >= 8 {
		if binary.BigEndian.Uint16(p[4:]) > kafkaMaxKey || binary.BigEndian.Uint16(p[6:]) > kafkaMaxVersion {
			return no
		}
	}
	if len(p) < kafkaHeader {
		return maybe
	}
	if p[8] >= 0x80 { // correlation ids are not negative
		return no
	}
	client := int16(binary.BigEndian.Uint16(p[12:]))
	return when(client >= -1 && client <= kafkaMaxClient)
}

// mysql is a handshake of protocol 10, or the error packet sent instead of it.
func mysql(p []byte) verdict {
	if len(p) > 3 && p[3] != 0 { // sequence number
		return no
	}
	if len(p) < 5 {
		return maybe
	}
	return when(p[4] == 0x0a || p[4] == 0xff)
}

// greeting220 is a "220" reply whose first line has one of the words, in any
// case (RFC 5321 section 4.3.1, RFC 959 section 4.2).
func greeting220(p []byte, words ...string) verdict {
	if v := literal(p, "220"); v != yes {
		return v
	}
	if len(p) > 3 && p[3] != ' ' && p[3] != '-' {
		return no
	}
	line, _, ended := bytes.Cut(p[:min(len(p), maxGreeting)], []byte("\n"))
	if !ended && len(p) < maxGreeting {
		return maybe
	}
	line = bytes.ToLower(line)
	for _, w := range words {
		if bytes.Contains(line, []byte(w)) {
			return yes
		}
	}
	return no
}

func when(ok bool) verdict {
	if ok {
		return yes
	}
	return no
}
