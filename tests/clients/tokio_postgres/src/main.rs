//! Plays statements.tsv through tokio-postgres: `STATEMENTS simple|extended|prepared|casts`.

use std::env;
use std::error::Error;
use std::fs;
use std::io;

use serde_json::{Value, json};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls, Row, SimpleQueryMessage};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Statement {
    name: String,
    sql: String,
    parameters: Vec<Option<String>>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().collect();
    let [_, file, mode] = arguments.as_slice() else {
        return Err("usage: STATEMENTS MODE".into());
    };
    let config = format!(
        "host={} user={} dbname={}",
        env::var("PGHOST")?,
        env::var("PGUSER")?,
        env::var("PGDATABASE")?
    );
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute("BEGIN").await?;
    match mode.as_str() {
        "casts" => casts(&client).await?,
        "across" => across(&client).await?,
        _ => {
            for statement in statements(file)? {
                let result = play(&client, &statement, mode).await?;
                check(&statement.name, &result);
            }
        }
    }
    client.batch_execute("COMMIT").await?;
    Ok(())
}

fn statements(file: &str) -> Result<Vec<Statement>> {
    let lines = fs::read_to_string(file)?;
    let parse = |line: &str| {
        let mut fields = line.split('\t').map(str::to_owned);
        Some(Statement {
            name: fields.next()?,
            sql: fields.next()?,
            parameters: fields.map(|f| Some(f).filter(|f| f != "\\N")).collect(),
        })
    };
    Ok(lines.lines().filter(|l| !l.starts_with('#')).filter_map(parse).collect())
}

/// The rows of a statement, or the error that it ended with.
async fn play(client: &Client, statement: &Statement, mode: &str) -> Result<Value> {
    let mut result = Value::Null;
    let times = if mode == "prepared" { 7 } else { 1 };
    let mut prepared = None;
    for left in (0..times).rev() {
        client.batch_execute("SAVEPOINT s").await?;
        let outcome = match mode {
            "simple" => simple(client, statement).await,
            _ => extended(client, &mut prepared, statement).await,
        };
        let failed = outcome.is_err();
        result = outcome.unwrap_or_else(|error| told(&error));
        if failed || left > 0 {
            client.batch_execute("ROLLBACK TO s").await?;
        }
    }
    Ok(result)
}

async fn extended(
    client: &Client,
    prepared: &mut Option<tokio_postgres::Statement>,
    statement: &Statement,
) -> std::result::Result<Value, tokio_postgres::Error> {
    let prepared = match prepared {
        Some(prepared) => prepared,
        None => prepared.insert(client.prepare(&statement.sql).await?),
    };
    let parameters: Vec<&(dyn ToSql + Sync)> =
        statement.parameters.iter().map(|p| p as &(dyn ToSql + Sync)).collect();
    client.query(prepared, &parameters).await?.iter().map(texts).collect()
}

fn texts(row: &Row) -> std::result::Result<Value, tokio_postgres::Error> {
    (0..row.len()).map(|n| Ok(json!(row.try_get::<_, Option<&str>>(n)?))).collect()
}

async fn simple(
    client: &Client,
    statement: &Statement,
) -> std::result::Result<Value, tokio_postgres::Error> {
    let mut sql = statement.sql.clone();
    for (n, parameter) in statement.parameters.iter().enumerate() {
        let literal = parameter
            .as_ref()
            .map_or("NULL".to_owned(), |text| format!("'{}'", text.replace('\'', "''")));
        sql = sql.replace(&format!("${}", n + 1), &literal);
    }
    let messages = client.simple_query(&sql).await?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|n| json!(row.get(n))).collect::<Value>())
        }
        _ => None,
    });
    Ok(rows.collect())
}

/// What works without being told that a protected column is text: casts, and typed parameters.
async fn casts(client: &Client) -> Result<()> {
    let insert = "INSERT INTO customer (tenant_id, number, ssn) VALUES ('acme', 20, $1::text)";
    check("insert", &json!(client.execute(insert, &[&"100-00-0020"]).await?));
    let insert = insert.replace("20, $1::text", "21, $1");
    let typed = client.prepare_typed(&insert, &[Type::TEXT]).await?;
    check("typed", &json!(client.execute(&typed, &[&"100-00-0021"]).await?));
    for sql in [
        "SELECT ssn::text, note::text FROM customer WHERE ssn = $1::text ORDER BY id",
        "SELECT lower(ssn), note || '!' FROM customer WHERE ssn >= $1::text ORDER BY ssn, id",
        "SELECT coalesce(ssn, $1::text) FROM customer ORDER BY id",
    ] {
        let rows: std::result::Result<Value, _> =
            client.query(sql, &[&"536-90-4399"]).await?.iter().map(texts).collect();
        check(sql, &rows?);
    }
    Ok(())
}

/// Statements prepared before somebody says on standard input that the columns are protected.
async fn across(client: &Client) -> Result<()> {
    client.batch_execute("COMMIT").await?;
    let mut prepared = Vec::new();
    for column in ["note", "ssn"] {
        let sql = format!("SELECT {column} FROM customer WHERE id = 1");
        prepared.push((column, client.prepare(&sql).await?));
    }
    for when in ["before", "after", "again"] {
        for (column, statement) in &prepared {
            let rows: std::result::Result<Value, _> = match client.query(statement, &[]).await {
                Ok(rows) => rows.iter().map(texts).collect(),
                Err(error) => Err(error),
            };
            let result = rows.unwrap_or_else(|error| told(&error));
            check(&format!("{column} {when}"), &result);
        }
        if when == "before" {
            io::stdin().read_line(&mut String::new())?;
        }
    }
    Ok(())
}

/// The server's SQLSTATE, or what the client itself refuses.
fn told(error: &tokio_postgres::Error) -> Value {
    match (error.code(), error.source()) {
        (Some(code), _) => json!(code.code()),
        (None, Some(cause)) => json!(format!("{error}: {cause}")),
        (None, None) => json!(error.to_string()),
    }
}

fn check(name: &str, result: &Value) {
    println!("{}", json!({"check": name, "result": result}));
}
