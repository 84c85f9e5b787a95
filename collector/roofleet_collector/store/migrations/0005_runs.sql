-- Names, tags and notes of runs, and what else is said of them.

SELECT 1;
