-- name: Balance :one
select balance from account where id = $1;

-- name: AddToBalance :execrows
update account set balance = balance + sqlc.arg(amount) where id = sqlc.arg(id);

-- name: CreateTransfer :exec
insert into transfer (id, payer, payee, amount) values ($1, $2, $3, $4);

-- name: TransfersOf :many
select id, payer, payee, amount from transfer where payer = $1 order by id;
