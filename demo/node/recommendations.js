// Recommends products of the catalog, over HTTP/1 with kept-alive connections.
'use strict'
const http = require('node:http')

const port = Number(process.env.PORT || 8080)
const catalog = process.env.CATALOG || 'http://catalog:8080'
const agent = new http.Agent({ keepAlive: true, maxSockets: 32 })

function products () {
  return new Promise((resolve, reject) => {
    const req = http.get(catalog + '/products', { agent, timeout: 5000 }, res => {
      let text = ''
      res.setEncoding('utf8')
      res.on('data', part => { text += part })
      res.on('end', () => {
        if (res.statusCode !== 200) return reject(new Error('catalog answers ' + res.statusCode))
        try { resolve(JSON.parse(text)) } catch (err) { reject(err) }
      })
      res.on('error', reject)
    })
    req.on('timeout', () => req.destroy(new Error('catalog does not answer')))
    req.on('error', reject)
  })
}

let turn = 0
async function recommend () {
  const all = await products()
  turn++
  return [0, 1, 2].map(i => all[(turn + i) % all.length])
}

function reply (res, code, value) {
  res.writeHead(code, { 'content-type': 'application/json' })
  res.end(JSON.stringify(value))
}

const server = http.createServer((req, res) => {
  if (req.url === '/ready') return reply(res, 200, 'ready')
  if (req.url !== '/recommendations') return reply(res, 404, { error: 'not found' })
  recommend().then(list => reply(res, 200, list), err => reply(res, 502, { error: err.message }))
})
server.keepAliveTimeout = 60000
server.listen(port, '0.0.0.0', () => console.log('recommendations listening on 0.0.0.0:' + server.address().port))

process.on('SIGTERM', () => {
  server.close(() => process.exit(0))
  server.closeIdleConnections()
})
