-- Roofs as observations kept with their conditions.

SELECT 1;
