import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.*;
import java.util.*;

/** Plays statements.tsv through JDBC: {@code Program.java STATEMENTS MODE}. */
public class Program {
    /** Properties of the connection. What "prepared" runs seven times is prepared by the second. */
    static final Map<String, String> MODES = Map.of(
        "simple", "preferQueryMode=simple",
        "extended", "prepareThreshold=0",
        "prepared", "prepareThreshold=1",
        "unspecified", "stringtype=unspecified",
        "cursor", "defaultRowFetchSize=2",
        "objects", "prepareThreshold=1",
        "across", "prepareThreshold=1",
        "batch", "reWriteBatchedInserts=true");

    public static void main(String[] arguments) throws Exception {
        String mode = arguments[1];
        String url = String.format("jdbc:postgresql://127.0.0.1:%s/%s?user=%s&%s", System.getenv("JDBC_PORT"),
            System.getenv("PGDATABASE"), System.getenv("PGUSER"), MODES.get(mode));
        try (Connection connection = DriverManager.getConnection(url)) {
            connection.setAutoCommit(false);
            switch (mode) {
                case "objects" -> objects(connection);
                case "batch" -> batch(connection);
                case "across" -> across(connection);
                default -> play(connection, Path.of(arguments[0]), mode.equals("prepared") ? 7 : 1);
            }
            connection.commit();
        }
    }

    static void play(Connection connection, Path file, int times) throws Exception {
        for (String line : Files.readAllLines(file)) {
            if (line.startsWith("#")) continue;
            String[] fields = line.split("\t", -1);
            Object result = null;
            try (PreparedStatement statement = connection.prepareStatement(fields[1].replaceAll("\\$\\d", "?"))) {
                for (int n = 2; n < fields.length; n++) statement.setString(n - 1, fields[n].equals("\\N") ? null : fields[n]);
                for (int left = times; left > 0; left--) {
                    Savepoint savepoint = connection.setSavepoint();
                    try {
                        result = statement.execute() ? rows(statement.getResultSet()) : List.of();
                        if (left > 1) connection.rollback(savepoint);
                    } catch (SQLException error) {
                        result = error.getSQLState();
                        connection.rollback(savepoint);
                    }
                }
            }
            check(fields[0], result);
        }
    }

    static List<List<String>> rows(ResultSet results) throws SQLException {
        List<List<String>> rows = new ArrayList<>();
        while (results.next()) {
            List<String> row = new ArrayList<>();
            for (int n = 1; n <= results.getMetaData().getColumnCount(); n++) row.add(results.getString(n));
            rows.add(row);
        }
        return rows;
    }

    /** What a client that asks for types is told. */
    static void objects(Connection connection) throws SQLException {
        String query = "SELECT id, ssn, note FROM customer WHERE number = 1 ORDER BY id";
        try (Statement statement = connection.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE)) {
            ResultSet results = statement.executeQuery(query);
            results.next();
            check("class", results.getObject("ssn").getClass().getName() + " " + results.getObject("ssn"));
            check("type", results.getMetaData().getColumnTypeName(2) + " " + results.getMetaData().getColumnType(2));
            check("array", String.valueOf(rows(statement.executeQuery(
                "SELECT array_agg(ssn ORDER BY id) FROM customer WHERE number = 1"))));
        }
        try (PreparedStatement statement = connection.prepareStatement("UPDATE customer SET note = ? WHERE ssn = ?")) {
            check("parameter", statement.getParameterMetaData().getParameterTypeName(2));
            statement.setObject(1, "an object");
            statement.setObject(2, "536-90-4399");
            check("update", statement.executeUpdate());
        }
    }

    static void batch(Connection connection) throws SQLException {
        String insert = "INSERT INTO customer (tenant_id, number, ssn, note) VALUES (?, ?, ?, ?)";
        try (PreparedStatement statement = connection.prepareStatement(insert, Statement.RETURN_GENERATED_KEYS)) {
            for (int n = 0; n < 50; n++) {
                statement.setString(1, n % 2 == 0 ? "acme" : "globex");
                statement.setInt(2, 300 + n);
                statement.setString(3, n % 10 == 0 ? null : "300-00-" + n);
                statement.setString(4, "batch");
                statement.addBatch();
            }
            check("batch", statement.executeBatch().length);
        }
        try (Statement statement = connection.createStatement(ResultSet.TYPE_FORWARD_ONLY, ResultSet.CONCUR_UPDATABLE)) {
            ResultSet results = statement.executeQuery("SELECT id, ssn, note FROM customer WHERE number = 301");
            results.next();
            results.updateString("note", results.getString("note") + ", by the result set");
            results.updateRow();
            check("updatable", rows(statement.executeQuery("SELECT ssn, note FROM customer WHERE number >= 300 ORDER BY number")));
        }
        DatabaseMetaData metadata = connection.getMetaData();
        ResultSet columns = metadata.getColumns(null, "public", "customer", "n%");
        List<String> names = new ArrayList<>();
        while (columns.next()) names.add(columns.getString("COLUMN_NAME"));
        check("columns", names);
    }

    /** Statements prepared before somebody says on standard input that the columns are protected. */
    static void across(Connection connection) throws Exception {
        connection.setAutoCommit(true);
        Map<String, PreparedStatement> prepared = new LinkedHashMap<>();
        for (String column : List.of("note", "ssn")) {
            prepared.put(column, connection.prepareStatement("SELECT " + column + " FROM customer WHERE id = 1"));
        }
        for (String when : List.of("before", "after", "again")) {
            for (Map.Entry<String, PreparedStatement> statement : prepared.entrySet()) {
                Object result;
                try {
                    result = rows(statement.getValue().executeQuery());
                } catch (SQLException error) {
                    result = error.getSQLState();
                }
                check(statement.getKey() + " " + when, result);
            }
            if (when.equals("before")) System.in.read();
        }
        connection.setAutoCommit(false);
    }

    static void check(String name, Object result) {
        System.out.println("{\"check\": " + json(name) + ", \"result\": " + json(result) + "}");
    }

    static String json(Object value) {
        if (value == null || value instanceof Integer) return String.valueOf(value);
        if (value instanceof List<?> list) {
            StringJoiner joined = new StringJoiner(", ", "[", "]");
            for (Object element : list) joined.add(json(element));
            return joined.toString();
        }
        StringBuilder escaped = new StringBuilder("\"");
        for (char c : value.toString().toCharArray()) {
            escaped.append(c < ' ' || c > '~' || c == '"' || c == '\\' ? String.format("\\u%04x", (int) c) : c);
        }
        return escaped.append('"').toString();
    }
}
