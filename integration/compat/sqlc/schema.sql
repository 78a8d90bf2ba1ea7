create table account (
  id bigint primary key,
  balance bigint not null
);

create table transfer (
  id text primary key,
  payer bigint not null,
  payee bigint not null,
  amount bigint not null
);
