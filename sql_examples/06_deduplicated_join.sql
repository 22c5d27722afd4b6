-- A join repeats values, and the model is still asked once per distinct value.
--
-- 3000 reviews are joined with 150 products. The question is about the product alone, so at most 150 rows are asked,
-- and every review of a product shares its answer.

CREATE OR REPLACE TEMPORARY VIEW reviews
USING parquet OPTIONS (path 'sql_examples/data/reviews.parquet');

CREATE OR REPLACE TEMPORARY VIEW products
USING parquet OPTIONS (path 'sql_examples/data/products.parquet');

SELECT p.category, count(DISTINCT p.product_id) AS products, count(*) AS reviews, round(avg(r.stars), 2) AS mean_stars
FROM reviews r
JOIN products p ON p.product_id = r.product_id
WHERE llm_filter('Is it suitable for kids?', p.product, p.description)
GROUP BY p.category
ORDER BY p.category;
