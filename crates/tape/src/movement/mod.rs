//! Operations that change where elements stand: shapes, views, joins.

mod expand;
mod reshape;
