-- Tables, an index and sorting in memory for a while; the same lines in every run.
CREATE TABLE item (id INTEGER PRIMARY KEY, word TEXT, amount INTEGER);
WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 300000)
INSERT INTO item SELECT n, 'w' || (n * 7919 % 5000), n * n % 9973 FROM number;
SELECT 'inserted', count(*), sum(amount) FROM item;
CREATE INDEX by_word ON item (word, amount);
SELECT 'indexed', word, sum(amount) FROM item GROUP BY word ORDER BY 3 DESC, 2 LIMIT 5;
UPDATE item SET amount = amount * 3 % 10007 WHERE id % 2 = 0;
SELECT 'updated', word, sum(amount) FROM item GROUP BY word ORDER BY 3 DESC, 2 LIMIT 5;
SELECT 'joined', count(*), sum(a.amount * b.amount % 7) FROM item a JOIN item b ON a.word = b.word
 WHERE a.id % 100 = 0;
DELETE FROM item WHERE amount % 3 = 0;
SELECT 'deleted', count(*), sum(amount) FROM item;
PRAGMA integrity_check;
