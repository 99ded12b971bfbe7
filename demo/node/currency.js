// Exchange rates, over HTTP/2 without TLS. The Service does not say so: the
// protocol is detected.
'use strict'
const http2 = require('node:http2')

const port = Number(process.env.PORT || 8080)
const rates = { EUR: 1, USD: 1.08, GBP: 0.85, JPY: 161.4 }

const sessions = new Set()
const server = http2.createServer()
server.on('session', session => {
  sessions.add(session)
  session.on('close', () => sessions.delete(session))
})
server.on('stream', (stream, headers) => {
  stream.on('error', () => {}) // the caller is gone
  const match = /^\/rates\/([A-Z]{3})$/.exec(headers[':path'])
  const rate = match && rates[match[1]]
  if (headers[':method'] !== 'GET' || !rate) {
    stream.respond({ ':status': 404, 'content-type': 'application/json' })
    stream.end(JSON.stringify({ error: 'no such currency' }))
    return
  }
  stream.respond({ ':status': 200, 'content-type': 'application/json' })
  stream.end(JSON.stringify({ rate }))
})
server.listen(port, '0.0.0.0', () => console.log('currency listening on 0.0.0.0:' + server.address().port))

process.on('SIGTERM', () => {
  server.close(() => process.exit(0))
  for (const session of sessions) session.close()
})
