-- Runs once, as the superuser, on an empty volume.
\getenv password POSTGRES_PASSWORD
CREATE ROLE latchkey LOGIN PASSWORD :'password';
CREATE DATABASE latchkey OWNER latchkey;
-- Without a password, the superuser can log in only through the socket in the container.
ALTER ROLE postgres PASSWORD NULL;
