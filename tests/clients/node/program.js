// Plays statements.tsv through node-postgres: `program.js STATEMENTS simple|extended|prepared`.
const fs = require('node:fs')
const { Client, Pool } = require('pg')

const check = (name, result) => console.log(JSON.stringify({ check: name, result }))

const statements = (file) =>
  fs.readFileSync(file, 'utf8').split('\n').filter((line) => line && !line.startsWith('#')).map((line) => {
    const [name, text, ...values] = line.split('\t')
    return { name, text, values: values.map((value) => (value === '\\N' ? null : value)) }
  })

// How one statement is sent.
const modes = {
  simple: (client, { text, values }) => ({
    text: text.replace(/\$(\d)/g, (_, n) => (values[n - 1] === null ? 'NULL' : client.escapeLiteral(values[n - 1]))),
  }),
  extended: (_, { text, values }) => ({ text, values, queryMode: 'extended' }),
  prepared: (_, { name, text, values }) => ({ name, text, values }),
}

async function play(file, mode) {
  const client = new Client()
  await client.connect()
  await client.query('BEGIN')
  for (const statement of statements(file)) {
    let result
    for (let left = mode === 'prepared' ? 7 : 1; left > 0; left--) {
      await client.query('SAVEPOINT s')
      try {
        result = (await client.query({ ...modes[mode](client, statement), rowMode: 'array' })).rows
        if (left > 1) await client.query('ROLLBACK TO s')
      } catch (error) {
        if (!error.code) throw error
        result = error.code
        await client.query('ROLLBACK TO s')
      }
    }
    check(statement.name, result)
  }
  await client.query('COMMIT')
  await client.end()
}

// Several clients of one pool at once, each with an open transaction.
async function pool() {
  const pool = new Pool({ max: 3 })
  await Promise.all([...Array(20).keys()].map(async (n) => {
    const client = await pool.connect()
    try {
      await client.query('BEGIN')
      const row = [n % 2 ? 'acme' : 'globex', 200 + n, `200-00-${n}`, { some: 'json', n }]
      await client.query('INSERT INTO customer (tenant_id, number, ssn, note) VALUES ($1, $2, $3, $4)', row)
      await client.query(n % 5 ? 'COMMIT' : 'ROLLBACK')
    } finally {
      client.release()
    }
  }))
  check('pool', (await pool.query('SELECT tenant_id, ssn, note FROM customer WHERE ssn LIKE $1 ORDER BY number', ['200-%'])).rows)
  check('any', (await pool.query('SELECT ssn FROM customer WHERE ssn = ANY($1) ORDER BY ssn', [['200-00-1', '200-00-2']])).rows)
  await pool.end()
}

// What only a client that is told "text" takes for an array.
async function arrays() {
  const client = new Client()
  await client.connect()
  const { rows, fields } = await client.query('SELECT ssn, array_agg(ssn) AS all FROM customer WHERE number = 1 GROUP BY ssn')
  check('arrays', [rows, fields.map(({ dataTypeID }) => dataTypeID < 16384)])
  await client.end()
}

// Statements prepared before somebody says on standard input that the columns are protected.
async function across() {
  const client = new Client()
  await client.connect()
  for (const when of ['before', 'after', 'again']) {
    for (const column of ['note', 'ssn']) {
      const query = { name: column, text: `SELECT ${column} FROM customer WHERE id = 1`, rowMode: 'array' }
      const result = await client.query(query).then(({ rows }) => rows, (error) => error.code)
      check(`${column} ${when}`, result)
    }
    if (when === 'before') fs.readSync(0, Buffer.alloc(1))
  }
  await client.end()
}

const [file, step] = process.argv.slice(2)
;(step in modes ? play(file, step) : { pool, arrays, across }[step]()).catch((error) => {
  console.error(error)
  process.exit(1)
})
